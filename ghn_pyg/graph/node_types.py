"""The node types of Graph HyperNetworks (GHN-2, arXiv 2110.13100, table 1)."""

from __future__ import annotations

from typing import Final

PRIMITIVES: Final = (
    "max_pool",
    "avg_pool",
    "sep_conv",
    "dil_conv",
    "conv",
    "msa",
    "cse",
    "sum",
    "concat",
    "input",
    "bias",
    "bn",
    "ln",
    "pos_enc",
    "glob_avg",
)
"""Node types in the order of their ids, the rows of the node embedding in checkpoints."""

PRIMITIVE_ID: Final = {name: position for position, name in enumerate(PRIMITIVES)}
"""Node type → id."""

ROLES: Final = {
    **dict.fromkeys(("conv", "sep_conv", "dil_conv"), ("weight",)),
    **dict.fromkeys(("bn", "ln"), ("gain", "bias")),
    "bias": ("bias",),
    "pos_enc": ("position",),
}
"""Node type → roles of the parameters that are decoded from it; other types have no parameters."""
