"""Graphs as text on disk, checked when they are read."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from typing import Any, Final, get_args

import numpy as np
import torch
from torch import Tensor

from ..collecting import collector_paused
from ..data import ArchData, Layout, ParamSpec
from ..primitives import PRIMITIVES, ROLES
from ..transforms import shortest_paths

_ROLES: Final = frozenset(role for roles in ROLES.values() for role in roles)
_LAYOUTS: Final = frozenset(get_args(Layout))
_LARGEST: Final = 1 << 63


def to_bytes(graph: ArchData, key: str) -> bytes:
    """The text of one network's graph: a hash, then JSON. Distances are left out: the edges give them.

    Args:
        graph: The graph.
        key: What it is stored under.

    Example:
        >>> from ghn_pyg import from_module
        >>> graph = from_module(torch.nn.Linear(3, 2), torch.zeros(1, 3))
        >>> from_bytes(to_bytes(graph, "key"), "key", cutoff=50).node_names
        ['input', 'weight', 'bias']
    """
    fields = {
        "key": key,
        "node_type": graph.node_type.tolist(),
        "edges": graph.edge_index.tolist(),
        "node_shape": graph.node_shape.flatten().tolist(),
        "classifier": graph.classifier.nonzero().flatten().tolist(),
        "params": [len(specs) for specs in graph.params],
        "specs": _columns([dataclasses.astuple(spec) for specs in graph.params for spec in specs]),
        "node_names": graph.node_names,
        "kept": graph.kept,
        "kept_shapes": graph.kept_shapes,
        "tied": graph.tied,
    }
    body = json.dumps(fields, separators=(",", ":")).encode()
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def from_bytes(text: bytes, key: str, cutoff: int) -> ArchData | None:
    """The graph that :func:`to_bytes` wrote under ``key``; ``None`` for anything else."""
    head, _, body = text.partition(b"\n")
    if head != hashlib.sha256(body).hexdigest().encode():
        return None
    try:
        with collector_paused():
            fields = json.loads(body)
            return _graph(fields, cutoff) if fields["key"] == key else None
    except (ValueError, KeyError, TypeError, RecursionError):  # the hash is right, but others wrote it
        return None


def same(first: ArchData, second: ArchData) -> bool:
    """Whether two graphs have the same fields with the same contents.

    Example:
        >>> from ghn_pyg import from_module
        >>> networks = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2), torch.nn.Linear(3, 2, bias=False)
        >>> graphs = [from_module(network, torch.zeros(1, 3)) for network in networks]
        >>> same(graphs[0], graphs[1]), same(graphs[0], graphs[2])
        (True, False)
    """
    one, other = first.to_dict(), second.to_dict()
    return one.keys() == other.keys() and all(_same_field(one[name], other[name]) for name in one)


def _same_field(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)


def _graph(fields: dict[str, Any], cutoff: int) -> ArchData:
    kinds = _numbers(fields["node_type"], len(PRIMITIVES))
    nodes = len(kinds)
    edges = [_numbers(ends, nodes) for ends in _items(fields["edges"], 2)]
    classifier = np.zeros(nodes, dtype=bool)
    classifier[_numbers(fields["classifier"], nodes)] = True
    shapes = _numbers(_items(fields["node_shape"], 4 * nodes))
    counts = _numbers(_items(fields["params"], nodes))
    specs = _specs(fields["specs"])
    if len(specs) != sum(counts):
        raise ValueError(f"expected {sum(counts)} parameters, got {len(specs)}")
    specs_left = iter(specs)
    edge_index = _tensor(edges).view(2, -1)
    return ArchData(
        node_type=_tensor(kinds),
        edge_index=edge_index,
        node_shape=_tensor(shapes).view(nodes, 4),
        classifier=torch.from_numpy(classifier),
        distance=shortest_paths(edge_index, nodes, cutoff).flatten(),
        params=[list(itertools.islice(specs_left, count)) for count in counts],
        node_names=_texts(_items(fields["node_names"], nodes)),
        kept=_pairs(fields["kept"]),
        kept_shapes=_shapes(fields["kept_shapes"]),
        tied=_pairs(fields["tied"]),
        num_nodes=nodes,
    )


def _tensor(numbers: Any) -> Tensor:
    return torch.from_numpy(np.array(numbers, dtype=np.int64))  # many times faster than torch.tensor


def _columns(rows: list[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in dataclasses.fields(ParamSpec)]


def _specs(columns: Any) -> list[ParamSpec]:
    names, shapes, roles, layouts, *counts, axes = _items(columns, len(dataclasses.fields(ParamSpec)))
    _texts(names)
    for shape in shapes:
        _items(shape)
    _check_axes(_texts(axes), shapes)
    _numbers(list(itertools.chain.from_iterable(shapes)))
    if not (_ROLES.issuperset(_texts(roles)) and _LAYOUTS.issuperset(_texts(layouts))):
        raise ValueError("expected roles and layouts of parameters, got others")
    rows = zip(names, map(tuple, shapes), roles, layouts, *map(_numbers, counts), axes, strict=True)
    return list(itertools.starmap(ParamSpec, rows))


def _check_axes(axes: list[str], shapes: list[Any]) -> None:
    for text, shape in zip(axes, shapes, strict=True):
        if text and (len(text) != len(shape) or not set(text) <= set("ois")):
            raise ValueError(f"expected what each dimension of {shape} is, got {text!r}")


def _items(value: Any, count: int | None = None) -> list[Any]:
    if type(value) is not list or count not in (None, len(value)):
        raise ValueError(f"expected a list of {count or 'any number of'} items, got {value!r:.40}")
    return value


def _numbers(value: Any, limit: int = _LARGEST) -> list[int]:
    if _items(value) and not (set(map(type, value)) == {int} and 0 <= min(value) <= max(value) < limit):
        raise ValueError(f"expected whole numbers from 0 to {limit - 1}, got {value!r:.40}")
    return value


def _texts(value: Any) -> list[str]:
    if not set(map(type, _items(value))) <= {str}:
        raise ValueError(f"expected texts, got {value!r:.40}")
    return value


def _shapes(value: Any) -> dict[str, tuple[int, ...]]:
    if type(value) is not dict:
        raise ValueError(f"expected an object, got {value!r:.40}")
    return {name: tuple(_numbers(shape)) for name, shape in value.items()}


def _pairs(value: Any) -> dict[str, str]:
    if type(value) is not dict:
        raise ValueError(f"expected an object, got {value!r:.40}")
    _texts(list(value.values()))
    return value
