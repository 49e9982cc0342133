"""Builds and traces the network that a command is given, with inputs as of ``--input ids=1x16:long``."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..utils.suggest import some
from ..zoo.parse_name import parse_name
from .terminal import counted, fail, status, user_errors

if TYPE_CHECKING:
    import torch

    from ..graph.arch_data import ArchData

_DTYPES: Final = (
    {"float": "float32", "half": "float16", "double": "float64", "int": "int32", "long": "int64"}
    | {name: name for name in ("float32", "float16", "float64", "bfloat16", "int32", "int64", "uint8", "bool")}
    | {"sparse": "sparse_coo"}
)
_INPUT: Final = re.compile(r"(?:(?P<keyword>[^=:]+)=)?(?P<shape>\d+(?:x\d+)*)(?::(?P<dtype>\w+))?")
_MAX_SIZE: Final = 1 << 40  # of an input without data, of which no network makes sense
_MAX_ELEMENTS: Final = 1 << 28  # of one with data
_PYTHON: Final = re.compile(r"\w\(\w|ghn_pyg\.|example_inputs|register_")


class InputShape(NamedTuple):
    """The shape of an input, the name of its type (or layout) in PyTorch, and its keyword, if it has one.

    A keyword ``data.x`` stands for the attribute ``x`` of the argument ``data``.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    keyword: str = ""


def parse_inputs(texts: Iterable[str]) -> list[InputShape]:
    """Parses shapes, types and keywords of the inputs of a network.

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
    if both := keywords & {keyword.partition(".")[0] for keyword in keywords if "." in keyword}:
        raise ValueError(f"--input expected an argument or its attributes, got both for {', '.join(sorted(both))}")
    return inputs


def make_inputs(inputs: Sequence[InputShape]) -> Any:
    """Makes example inputs: a tuple of arguments, or a dictionary of keyword arguments.

    Floating-point tensors have no data. Integers are zeros, masks are true, and sparse tensors have all elements.
    Attributes of an argument make a :class:`torch_geometric.data.Data`, which also gives them by name, as a dictionary.

    Example:
        >>> make_inputs(parse_inputs(["1x5", "1x7:long"]))[1].dtype
        torch.int64
        >>> make_inputs(parse_inputs(["data.x=3x5", "data.edge_index=2x7:long"]))
        {'data': Data(x=[3, 5], edge_index=[2, 7])}
    """
    import torch
    from torch_geometric.data import Data

    tensors = []
    for shape, name, _ in inputs:
        dtype = getattr(torch, name)
        limit = _MAX_SIZE if isinstance(dtype, torch.dtype) and dtype.is_floating_point else _MAX_ELEMENTS
        if (size := math.prod(shape)) > limit:
            raise ValueError(f"--input expected at most {limit:,} elements, got {size:,}")
        if dtype is torch.sparse_coo:
            tensors.append(torch.ones(shape).to_sparse())
        elif dtype.is_floating_point:
            tensors.append(torch.empty(shape, dtype=dtype, device="meta"))
        else:
            tensors.append(torch.full(shape, dtype is torch.bool, dtype=dtype))
    if not inputs or not inputs[0].keyword:
        return tuple(tensors)
    arguments: dict[str, Any] = {}
    for (*_, keyword), tensor in zip(inputs, tensors, strict=True):
        name, _, attribute = keyword.partition(".")
        if attribute:
            arguments.setdefault(name, Data())[attribute] = tensor
        else:
            arguments[name] = tensor
    return arguments


def check_networks(sources: Iterable[str], inputs: Sequence[str] | None) -> list[InputShape]:
    """Checks names of networks and shapes of inputs without importing torch, and returns the parsed inputs."""
    with user_errors(ValueError):
        for source in sources:
            parse_name(source)
        return parse_inputs(inputs or ())


def build(source: str, inputs: Sequence[InputShape]) -> tuple[torch.nn.Module, Any]:
    """Builds a network without memory, with its example inputs."""
    from ..zoo.build import skeleton

    with status(f"Building {source}"), user_errors(ValueError, ImportError):
        network, example_inputs = skeleton(source)
    with user_errors(ValueError):
        return network, make_inputs(inputs) if inputs else example_inputs


def trace(source: str, inputs: Sequence[InputShape], strict: bool) -> tuple[torch.nn.Module, ArchData, float]:
    """Builds a network without memory and traces it; returns also how many seconds the trace took."""
    network, example_inputs = build(source, inputs)
    with status(f"Tracing {source}"):
        from ..tracing.parameter_coverage import check_coverage
        from ..tracing.trace import TracingError, from_module

        start = time.perf_counter()
        try:
            graph = from_module(network, example_inputs)
            seconds = time.perf_counter() - start
            if strict:
                check_coverage(graph)
        except (ValueError, TypeError, MemoryError, TracingError) as error:
            fail(describe(error))
    return network, graph, seconds


def describe(
    error: Exception | str, instead: str = ". Give inputs that fit with --input, such as --input 1x3x32x32"
) -> str:
    """The message of an error; advice on Python calls is replaced by advice on options."""
    sentences = re.split(r"(?<=[.;]) ", str(error))
    advice = ""
    while len(sentences) > 1 and _PYTHON.search(sentences[-1]):
        del sentences[-1]
        advice = instead
    return " ".join(sentences).rstrip(".;") + advice


def describe_parameters(names: Iterable[str], sizes: Mapping[str, int]) -> str:
    """The number of tensors and of their elements."""
    names = list(names)
    return f"{counted(len(names), 'tensor')}, {counted(sum(sizes[name] for name in names), 'parameter')}"


def kept_rows(kept: Mapping[str, str], sizes: Mapping[str, int]) -> list[tuple[str, str]]:
    """Parameters that are not predicted, one row for each reason."""
    names_by_reason: dict[str, list[str]] = {}
    for name, reason in kept.items():
        names_by_reason.setdefault(reason, []).append(name)
    return [
        ("kept", f"{describe_parameters(names, sizes)}: {reason} ({some(names)})")
        for reason, names in names_by_reason.items()
    ] or [("kept", "none")]
