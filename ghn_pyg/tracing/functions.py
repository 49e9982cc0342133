"""Functions of PyTorch that a trace treats alike."""

from __future__ import annotations

from typing import Any, Final

from torch import Tensor

IN_PLACE: Final = frozenset(
    getattr(Tensor, f"__{name}__")
    for name in ("setitem", "iadd", "isub", "imul", "itruediv", "iand", "ior", "ixor", "ifloordiv", "ipow")
    if hasattr(Tensor, f"__{name}__")
)
QUERIES: Final = frozenset(
    getattr(Tensor, name)
    for name in ("dim", "size", "numel", "stride", "is_contiguous", "is_floating_point", "is_complex", "ndimension",
                 "element_size", "get_device", "__len__", "__hash__", "__repr__", "__str__", "__format__", "data_ptr")
)  # fmt: skip
ARRAYS: Final[frozenset[Any]] = frozenset((Tensor.numpy, Tensor.__array__))
# NumPy's names of arguments, which PyTorch takes too, and PyTorch's own for the second operand of a power.
ALIASES: Final = {
    "axis": "dim", "keepdims": "keepdim", "axis0": "dim0", "axis1": "dim1", "x": "input", "exponent": "other",
}  # fmt: skip
