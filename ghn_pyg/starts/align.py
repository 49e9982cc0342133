"""Which tensor of a teacher is the counterpart of which tensor of a student.

Networks of one family have the same names but for numbers: these are aligned level by level, so that blocks stay whole.
Other networks are aligned as sequences of layers, in the order in which their forward passes use them.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from torch import Tensor

_LEAST_NAMED: Final = 0.5  # share of a student's tensors with a counterpart by name, below which layers are aligned
_SPACING: Final = 1e-3  # weight of an even spacing, which decides between blocks that are alike


@dataclasses.dataclass(frozen=True)
class Counterpart:
    """A teacher's tensor, and whether it serves a layer that the teacher does not have."""

    name: str
    new: bool = False


def align(
    student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], orders: tuple[Mapping[str, int], Mapping[str, int]]
) -> dict[str, Counterpart]:
    """The counterparts of a student's tensors by name; those without one are left out.

    Args:
        student: Its parameters and buffers by name.
        teacher: Its parameters and buffers by name.
        orders: Their places in the order of first use.
    """
    trees = _tree(student), _tree(teacher)
    found = dict(_align_trees(*trees, new=False))
    if len(found) < _LEAST_NAMED * len(student):
        found = _align_layers(student, teacher, orders)
    return found


# --- by name ---------------------------------------------------------------------------------------------------------


def _tree(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        node = root
        for part in path:
            node = node.setdefault(part, {})
        node[last] = (name, tuple(tensor.shape))
    return root


def _leaves(node: Any, prefix: str = "") -> Iterable[tuple[str, tuple[int, ...]]]:
    if isinstance(node, tuple):
        yield prefix, node[1]
    else:
        for key, child in node.items():
            yield from _leaves(child, f"{prefix}.{key}")


def _align_trees(student: Any, teacher: Any, new: bool) -> Iterable[tuple[str, Counterpart]]:
    if isinstance(student, tuple) or isinstance(teacher, tuple):
        if isinstance(student, tuple) and isinstance(teacher, tuple) and _rank(student[1]) == _rank(teacher[1]):
            yield student[0], Counterpart(teacher[0], new)
        return
    for stem, ours in _series(student).items():
        theirs = _series(teacher).get(stem, [])
        for key, (other, inserted) in _align_series(student, ours, teacher, theirs).items():
            yield from _align_trees(student[key], teacher[other], new or inserted)


def _series(node: Mapping[str, Any]) -> dict[str, list[str]]:
    """Names of children by what comes before their number, in the order of the numbers."""
    series: dict[str, list[tuple[int, str]]] = {}
    for key in node:
        match = re.fullmatch(r"(.*?)(\d*)", key)
        assert match is not None
        series.setdefault(match[1], []).append((int(match[2] or -1), key))
    return {stem: [key for _, key in sorted(keys)] for stem, keys in series.items()}


def _align_series(
    student: Mapping[str, Any], ours: Sequence[str], teacher: Mapping[str, Any], theirs: Sequence[str]
) -> dict[str, tuple[str, bool]]:
    """Counterparts of children of one name, and whether they are new."""
    alike = [[_alike(student[mine], teacher[its]) for its in theirs] for mine in ours]
    for i, mine in enumerate(ours):
        for j, its in enumerate(theirs):
            # conv2 is conv2 rather than another layer of its kernel; blocks are told apart by their place.
            if mine == its and not mine.isdigit() and _is_layer(student[mine]):
                alike[i][j] *= 2
    if list(ours) == list(theirs) and all(alike[i][i] > 0 for i in range(len(ours))):
        return {key: (key, False) for key in ours}
    pairs = match_in_order(len(ours), len(theirs), lambda i, j: alike[i][j])
    found: dict[str, tuple[str, bool]] = {ours[i]: (theirs[j], False) for i, j in pairs.items()}
    for i, mine in enumerate(ours):
        if mine not in found and pairs:
            near = sorted(pairs, key=lambda other: (-alike[i][pairs[other]], abs(other - i + 0.1)))[0]
            if alike[i][pairs[near]] > 0:
                found[mine] = theirs[pairs[near]], True
    return found


def _rank(shape: tuple[int, ...]) -> int:
    """The number of dimensions; a kernel of one place counts as a matrix."""
    return 2 if len(shape) > 2 and set(shape[2:]) == {1} else len(shape)


def _is_layer(node: Any) -> bool:
    return isinstance(node, tuple) or all(isinstance(child, tuple) for child in node.values())


def _alike(student: Any, teacher: Any) -> float:
    """How alike two modules are, 0 to 1, by the names, kernels and proportions of their tensors."""
    kinds = []
    for node in (student, teacher):
        leaves = list(_leaves(node))
        names: Counter[Any] = Counter((name, len(shape)) for name, shape in leaves)
        kernels: Counter[Any] = Counter((name, *shape[2:]) for name, shape in leaves)
        ratios: Counter[Any] = Counter(
            (name, shape[0] / shape[1], *shape[2:]) if len(shape) > 1 else (name,) for name, shape in leaves
        )
        kinds.append((names, kernels, ratios))
    shares = [(one & other).total() / max(1, (one | other).total()) for one, other in zip(*kinds, strict=True)]
    return sum(shares) / 3


def match_in_order(count: int, other: int, alike: Callable[[int, int], float]) -> dict[int, int]:
    """Pairs of two sequences, in order, each in one pair at most, that are as alike and as evenly spaced as can be."""

    def place(index: int, size: int) -> float:
        return index / (size - 1) if size > 1 else 0.0

    best = [[0.0] * (other + 1) for _ in range(count + 1)]
    for i in range(count - 1, -1, -1):
        for j in range(other - 1, -1, -1):
            value = alike(i, j)
            paired = best[i + 1][j + 1] + value * (1 - _SPACING * (place(i, count) - place(j, other)) ** 2)
            best[i][j] = max(best[i + 1][j], best[i][j + 1], paired if value > 0 else 0.0)
    pairs, i, j = {}, 0, 0
    while i < count and j < other:
        if best[i][j] == best[i + 1][j]:
            i += 1
        elif best[i][j] == best[i][j + 1]:
            j += 1
        else:
            pairs[i] = j
            i, j = i + 1, j + 1
    return pairs


# --- by order of use -------------------------------------------------------------------------------------------------


def _align_layers(
    student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], orders: tuple[Mapping[str, int], Mapping[str, int]]
) -> dict[str, Counterpart]:
    """Counterparts of modules with tensors of their own, by kind and place."""
    ours, theirs = (_layers(tensors, order) for tensors, order in zip((student, teacher), orders, strict=True))

    def alike(i: int, j: int) -> float:
        (mine, place), (its, where) = ours[i], theirs[j]
        kinds = [{(key, len(shape)) for key, (_, shape) in layer.items()} for layer in (mine, its)]
        if not kinds[0] & kinds[1]:
            return 0.0
        kernels = [
            {(key, *shape[2:], shape[1:2] == (1,)) for key, (_, shape) in layer.items()} for layer in (mine, its)
        ]
        shares = [len(one & other) / len(one | other) for one, other in (kinds, kernels)]
        return (sum(shares) + 1 - abs(place - where)) / 3

    found: dict[str, Counterpart] = {}
    pairs = match_in_order(len(ours), len(theirs), alike)
    for i, (mine, _) in enumerate(ours):
        new = i not in pairs
        j = pairs.get(i)
        if j is None:
            j = max(range(len(theirs)), key=lambda other: alike(i, other), default=None)
        if j is None or alike(i, j) == 0:
            continue
        for key, (name, shape) in mine.items():
            its = theirs[j][0].get(key)
            if its is not None and len(its[1]) == len(shape):
                found[name] = Counterpart(its[0], new)
    return found


def _layers(
    tensors: Mapping[str, Tensor], order: Mapping[str, int]
) -> list[tuple[dict[str, tuple[str, tuple[int, ...]]], float]]:
    """Modules as their tensors by last name, and their relative place, in the order of use."""
    layers: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {}
    for name in sorted((name for name in tensors if name in order), key=lambda name: order[name]):
        module, _, last = name.rpartition(".")
        layers.setdefault(module, {})[last] = name, tuple(tensors[name].shape)
    return [(layer, i / max(1, len(layers) - 1)) for i, layer in enumerate(layers.values())]
