from .arch_data import NO_SHAPE, ArchData, ParamSpec
from .export import to_graphml, to_json
from .node_types import PRIMITIVE_ID, PRIMITIVES

__all__ = ["NO_SHAPE", "PRIMITIVES", "PRIMITIVE_ID", "ArchData", "ParamSpec", "to_graphml", "to_json"]
