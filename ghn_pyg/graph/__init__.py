"""Architectures as PyTorch Geometric data."""

from .arch_data import NO_SHAPE, ArchData, ParamSpec
from .node_types import PRIMITIVE_ID, PRIMITIVES

__all__ = ["NO_SHAPE", "PRIMITIVES", "PRIMITIVE_ID", "ArchData", "ParamSpec"]
