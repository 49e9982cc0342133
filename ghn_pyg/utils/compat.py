"""Every private name of torch and PyTorch Geometric that the package uses, each with what happens where it is missing."""

from __future__ import annotations
