"""Parses the option ``--input``, such as ``1x3x32x32`` or ``ids=1x16:long``, without importing torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

_DTYPES: Final = {"float": "float32", "half": "float16", "double": "float64", "int": "int32", "long": "int64"} | {
    name: name for name in ("float32", "float16", "float64", "bfloat16", "int32", "int64", "uint8", "bool")
}
_INPUT: Final = re.compile(r"(?:(?P<keyword>[^=:]+)=)?(?P<shape>\d+(?:x\d+)*)(?::(?P<dtype>\w+))?")


class InputShape(NamedTuple):
    """The shape of an input, the name of its type in PyTorch, and its keyword, if it has one."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    keyword: str = ""


def parse_inputs(texts: Iterable[str]) -> list[InputShape]:
    """Parses shapes, types and keywords of the inputs of a network.

    Raises:
        ValueError: If a text has another form, or only some have a keyword, or two have the same.

    Example:
        >>> parse_inputs(["ids=1x16:long"])
        [InputShape(shape=(1, 16), dtype='int64', keyword='ids')]
    """
    inputs = []
    for text in texts:
        if (match := _INPUT.fullmatch(text)) is None:
            raise ValueError(f"--input expected a shape, such as 1x3x32x32, 1x16:long or ids=1x16:long, got {text!r}")
        dtype = match["dtype"] or "float32"
        if dtype not in _DTYPES:
            raise ValueError(f"--input expected one of the types {', '.join(_DTYPES)}, got {dtype!r} in {text!r}")
        inputs.append(InputShape(tuple(map(int, match["shape"].split("x"))), _DTYPES[dtype], match["keyword"] or ""))
    keywords = {each.keyword for each in inputs}
    if keywords != {""} and len(keywords - {""}) < len(inputs):
        raise ValueError("--input expected a different keyword for each input, or no keywords")
    return inputs


def make_inputs(inputs: Sequence[InputShape]) -> Any:
    """Makes example inputs: a tuple of arguments, or a dictionary of keyword arguments.

    Floating-point tensors have no data. Integers are zeros, and masks are true.

    Example:
        >>> make_inputs(parse_inputs(["1x5", "1x7:long"]))[1].dtype
        torch.int64
    """
    import torch

    tensors = []
    for shape, name, _ in inputs:
        dtype = getattr(torch, name)
        if dtype.is_floating_point:
            tensors.append(torch.empty(shape, dtype=dtype, device="meta"))
        else:
            tensors.append(torch.full(shape, dtype is torch.bool, dtype=dtype))
    if inputs and inputs[0].keyword:
        return {each.keyword: tensor for each, tensor in zip(inputs, tensors, strict=True)}
    return tuple(tensors)
