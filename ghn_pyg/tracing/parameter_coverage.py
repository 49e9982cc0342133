"""``coverage``: which parameters of a network are predicted, from which node, and why the others are kept."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Literal

from torch import nn

from ..graph.arch_data import ArchData, ParamSpec
from ..utils.suggest import some
from .kept_reasons import NO_GAP
from .trace import from_module

if TYPE_CHECKING:
    from rich.table import Table

_LISTED: Final = 5
"""How many kept weight matrices an error names."""
_AXES: Final = {"o": "out", "i": "in", "s": "stack"}
_COLUMNS: Final = ("parameter", "shape", "elements", "outcome", "rule or reason", "node")
_GROUP_COLUMNS: Final = ("outcome", "rule or reason", "tensors", "elements", "share", "parameters")
_NUMBERS: Final = frozenset(("shape", "elements", "tensors", "share"))


class CoverageError(ValueError):
    """A weight matrix of a network would not be predicted."""


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One parameter of a network, under one of its names."""

    name: str
    shape: tuple[int, ...]
    outcome: Literal["predicted", "kept"]
    why: str  # how it is predicted, such as "weight of conv", or why it is kept
    node: str = ""  # the node that it is decoded from; empty if it is kept
    node_type: str = ""
    tied_to: str = ""  # for a further name of a shared parameter, its name in the graph
    in_layer: bool = True  # part of a weight matrix, convolution, norm or embedding, or kept, if that is a gap

    @property
    def elements(self) -> int:
        """Number of its elements."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True, repr=False)
class Coverage:
    """Which parameters of a network are predicted. Shared parameters count once in all figures."""

    rows: tuple[Row, ...]  # one for each name of each parameter
    nodes: int  # of the network's graph

    @property
    def predicted(self) -> tuple[Row, ...]:
        """The predicted parameters, each once."""
        return tuple(row for row in self._distinct() if row.outcome == "predicted")

    @property
    def kept(self) -> tuple[Row, ...]:
        """The parameters that keep their values, each once."""
        return tuple(row for row in self._distinct() if row.outcome == "kept")

    @property
    def elements(self) -> int:
        """Total number of elements of all parameters."""
        return _elements(self._distinct())

    @property
    def share(self) -> float:
        """The share of elements that are predicted, from 0 to 1."""
        return _share(self._distinct())

    @property
    def layer_share(self) -> float:
        """The share of elements of weight matrices, convolutions, norms and embeddings that are predicted.

        Parameters that cannot hold a prediction, such as integers and flat vectors that weights are cut from, do not
        count.
        """
        return _share([row for row in self._distinct() if row.in_layer])

    @property
    def kept_weights(self) -> tuple[Row, ...]:
        """Weight matrices that could be predicted, but are kept: parameters with two dimensions larger than 1."""
        return tuple(row for row in self.kept if row.in_layer and sum(size > 1 for size in row.shape) > 1)

    def check(self) -> None:
        """Raises an error if a weight matrix is kept.

        Raises:
            CoverageError: If there are :attr:`kept_weights`; it names them, the reasons, and what to do.
        """
        if not (rows := self.kept_weights):
            return
        named = "; ".join(f"{row.name} ({_size(row)}): {row.why}" for row in rows[:_LISTED])
        more = f"; and {len(rows) - _LISTED} more" if len(rows) > _LISTED else ""
        number = "1 weight matrix is" if len(rows) == 1 else f"{len(rows)} weight matrices are"
        raise CoverageError(
            f"{number} not predicted. {named}{more}. Register a handler for the layer with ghn_pyg.register_layer, "
            "build the graph with example_inputs for which the forward pass uses it, or drop strict to keep its values"
        )

    def totals(self) -> list[tuple[str, str]]:
        """The figures over all parameters, as labelled lines."""
        predicted = self.predicted
        lines = [
            ("tensors", f"{len(predicted):,} of {len(self._distinct()):,} predicted"),
            ("elements", f"{_elements(predicted):,} of {self.elements:,} predicted, {percent(self.share)}"),
            ("layers", f"{percent(self.layer_share)} of weight matrices, convolutions, norms and embeddings predicted"),
        ]
        if tied := [row.name for row in self.rows if row.tied_to]:
            lines.append(("tied", f"{len(tied):,} further names of shared tensors: {some(tied)}"))
        return lines

    def table(self, full: bool = False) -> Table:
        """A table for a terminal or notebook.

        Args:
            full: One row for each name, in the order of the network. By default one row for each rule and reason,
                kept parameters last, then by size.
        """
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in _COLUMNS if full else _GROUP_COLUMNS:
            table.add_column(column, justify="right" if column in _NUMBERS else "left")
        for cells in map(_cells, self.rows) if full else self._groups():
            table.add_row(*map(Text, cells))
        return table

    def to_rows(self) -> list[dict[str, Any]]:
        """The rows as plain values, for CSV and data frames."""
        return [
            {
                "name": row.name, "shape": "x".join(map(str, row.shape)), "elements": row.elements,
                "outcome": row.outcome, "why": str(row.why), "node": row.node, "node_type": row.node_type,
                "tied_to": row.tied_to,
            }
            for row in self.rows
        ]  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Figures and rows as plain values, for JSON."""
        predicted = self.predicted
        return {
            "nodes": self.nodes,
            "tensors": len(self._distinct()),
            "tensors_predicted": len(predicted),
            "elements": self.elements,
            "elements_predicted": _elements(predicted),
            "share": self.share,
            "layer_share": self.layer_share,
            "kept_weights": len(self.kept_weights),
            "rows": self.to_rows(),
        }

    def __str__(self) -> str:
        from rich.console import Console

        stream = io.StringIO()
        Console(file=stream, width=160).print(self.table())
        lines = [line.rstrip() for line in stream.getvalue().rstrip().split("\n")]
        return "\n".join([*lines, "", *(f"{label}: {text}" for label, text in self.totals())])

    def __repr__(self) -> str:
        tensors = f"{len(self.predicted)} of {len(self._distinct())}"
        return f"Coverage({tensors} tensors predicted, {percent(self.share)} of elements)"

    def _distinct(self) -> list[Row]:
        return [row for row in self.rows if not row.tied_to]

    def _groups(self) -> list[tuple[str, ...]]:
        groups: dict[tuple[str, str], list[Row]] = {}
        for row in self._distinct():
            groups.setdefault((row.outcome, str(row.why)), []).append(row)
        ordered = sorted(groups.items(), key=lambda item: (item[0][0] == "kept", -_elements(item[1])))
        return [
            (*group, f"{len(rows):,}", f"{_elements(rows):,}", percent(_elements(rows) / (self.elements or 1)),
             some([row.name for row in rows]))
            for group, rows in ordered
        ]  # fmt: skip


def coverage(network: nn.Module | ArchData, example_inputs: Any = None) -> Coverage:
    """Reports which parameters of a network a GHN predicts, from which node and how, and why it keeps the others.

    Args:
        network: The network, which stays as it is, or its graph.
        example_inputs: Inputs of its forward pass, as for :func:`~ghn_pyg.from_module`: a tensor of any layout, an
            object that holds tensors, such as PyG's ``Data``, a tuple of arguments, or a mapping of keyword arguments.

    Returns:
        One row for each name of each parameter, and figures over all of them.

    Raises:
        TypeError: If ``network`` is neither a network nor a graph, or a graph comes with ``example_inputs``.
        ValueError: If the graph is a batch, or does not have the shapes of its kept parameters.
        TracingError: If the forward pass of the network cannot be traced.

    Example:
        >>> import torchvision
        >>> report = coverage(torchvision.models.vit_b_16())
        >>> report
        Coverage(151 of 152 tensors predicted, 99.99% of elements)
        >>> [row.name for row in report.kept]
        ['class_token']
    """
    if isinstance(network, ArchData):
        if example_inputs is not None:
            raise TypeError("coverage takes example_inputs with a network, and a graph without them")
        return _of_graph(network)
    report = _of_graph(from_module(network, example_inputs))
    rows = {row.name: row for row in report.rows}
    return Coverage(tuple(rows[name] for name, _ in network.named_parameters(remove_duplicate=False)), report.nodes)


def check_coverage(graph: ArchData) -> None:
    """Raises the error of :meth:`Coverage.check` for a graph, or for the first graph of a batch that gives one."""
    if graph.get("ptr") is None:
        _of_graph(graph).check()
        return
    for index, part in enumerate(graph.to_data_list()):
        try:
            _of_graph(part).check()
        except CoverageError as error:
            raise CoverageError(f"network {index} of {graph.num_graphs}: {error}") from None


def percent(share: float) -> str:
    """A share from 0 to 1, rounded down, so that only a complete one reads 100%."""
    return f"{math.floor(share * 10_000) / 10_000:.2%}"


def _of_graph(graph: ArchData) -> Coverage:
    if graph.get("ptr") is not None:
        raise ValueError("coverage expected one graph, got a batch; call it on each of batch.to_data_list()")
    rows = []
    for specs, node, kind in zip(graph.params, graph.node_names, graph.node_types, strict=True):
        for spec in specs:
            in_layer = spec.role != "bias" or kind in ("bn", "ln")
            rows.append(Row(spec.name, spec.shape, "predicted", _rule(spec, kind), node, kind, in_layer=in_layer))
    for name, reason in graph.kept.items():
        if name not in graph.kept_shapes:
            raise ValueError(f"the graph does not have the shape of {name}, which is kept; rebuild it with from_module")
        shape = graph.kept_shapes[name]
        rows.append(Row(name, shape, "kept", reason, in_layer=reason not in NO_GAP and math.prod(shape) > 1))
    by_name = {row.name: row for row in rows}
    rows += [dataclasses.replace(by_name[first], name=name, tied_to=first) for name, first in graph.tied.items()]
    return Coverage(tuple(rows), graph.num_nodes)


def _rule(spec: ParamSpec, kind: str) -> str:
    """How a parameter is decoded, in words."""
    parts = ["bias" if kind == spec.role else f"{spec.role} of {kind}"]
    if axes := "io" if spec.layout == "in_out" else spec.axes:
        parts.append(f"stored ({', '.join(_AXES[axis] for axis in axes)})")
    if spec.groups > 1:
        parts.append(f"{spec.groups} groups")
    if spec.stacked:
        parts.append(f"a stack of {math.prod(spec.shape[: spec.stacked])}")
    if spec.extra_rows:
        parts.append(f"{spec.extra_rows} of its rows for tokens")
    return ", ".join(parts)


def _size(row: Row) -> str:
    return "×".join(map(str, row.shape))


def _cells(row: Row) -> tuple[str, ...]:
    why = f"{row.why}, tied to {row.tied_to}" if row.tied_to else str(row.why)
    node = f"{row.node} ({row.node_type})" if row.node else ""
    return row.name, _size(row), f"{row.elements:,}", row.outcome, why, node


def _elements(rows: Iterable[Row]) -> int:
    return sum(row.elements for row in rows)


def _share(rows: list[Row]) -> float:
    """The share of elements that are predicted; 1 if there are none."""
    elements = _elements(rows)
    return _elements(row for row in rows if row.outcome == "predicted") / elements if elements else 1.0
