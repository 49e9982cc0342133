import collections
import dataclasses
import functools
import threading
import types
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data, HeteroData

from ghn_pyg.utils.nested_tensors import copy_with_tensors, map_tensors, tensors_in, tensors_inside


class Pair(NamedTuple):
    first: Tensor
    second: int


def test_tensors_in_nested_values():
    a, b, c = torch.rand(2), torch.rand(3), torch.rand(5)
    tensors = list(tensors_in([a, 3, {"b": b, "none": None}, ("c", [c, [a]])]))
    assert [id(tensor) for tensor in tensors] == [id(tensor) for tensor in (a, b, c, a)]
    assert list(tensors_in([3, "x", {}])) == []


def test_map_tensors_keeps_the_structure():
    a, b = torch.rand(2), torch.rand(3)
    value = [a, {"b": (b, 3)}, Pair(a, 5), "x", None]
    assert map_tensors(len, value) == [2, {"b": (3, 3)}, Pair(2, 5), "x", None]
    assert map_tensors(len, value)[2].second == 5
    assert value[0] is a


class Plain:
    def __init__(self, x):
        self.x = x


class Slots:
    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    x: Tensor


class Table(collections.abc.Mapping):
    def __init__(self, rows):
        self._rows = rows

    def __getitem__(self, key):
        return self._rows[key]

    def __iter__(self):
        return iter(self._rows)

    def __len__(self):
        return len(self._rows)


def with_cycle(x):
    value = Plain(x)
    value.parts = [value]
    return value


def hetero(x):
    data = HeteroData()
    data["paper"].x = x
    return data


# Each holds one tensor, which the second function reads.
HOLDERS = {
    "list": (lambda x: [3, [x]], lambda value: value[1][0]),
    "deque": (lambda x: collections.deque([x]), lambda value: value[0]),
    "set": (lambda x: {x}, lambda value: next(iter(value))),
    "named tuple": (lambda x: Pair(x, 3), lambda value: value.first),
    "dictionary": (lambda x: collections.OrderedDict(x=x), lambda value: value["x"]),
    "user dictionary": (lambda x: collections.UserDict(x=x), lambda value: value["x"]),
    "mapping": (lambda x: Table({"x": x}), lambda value: value["x"]),
    "read-only mapping": (
        lambda x: types.MappingProxyType({"y": types.MappingProxyType({"x": x})}), lambda value: value["y"]["x"],
    ),
    "plain object": (Plain, lambda value: value.x),
    "object with slots": (Slots, lambda value: value.x),
    "frozen dataclass": (Frozen, lambda value: value.x),
    "object that holds itself": (with_cycle, lambda value: value.parts[0].x),
    "data": (lambda x: Data(x=x), lambda value: value.x),
    "batch": (lambda x: Batch(x=x), lambda value: value["x"]),
    "heterogeneous data": (hetero, lambda value: value["paper"].x),
}  # fmt: skip


@pytest.mark.parametrize(("hold", "read"), HOLDERS.values(), ids=HOLDERS)
def test_objects_of_any_kind(hold, read):
    x = torch.rand(2, 3)
    value, new = hold(x), torch.rand(5)
    assert [id(tensor) for tensor in tensors_inside(value)] == [id(x)]
    copy = copy_with_tensors(lambda tensor: new if tensor is x else None, value)
    assert type(copy) is type(value)
    assert copy is not value
    assert read(copy) is new
    assert read(value) is x


def test_a_tensor_that_occurs_twice_stays_one():
    x, calls = torch.rand(2), []
    first, second = copy_with_tensors(lambda tensor: calls.append(tensor) or torch.rand(2), (x, Plain(x)))
    assert first is second.x
    assert len(calls) == 1


def test_objects_without_tensors_are_copied():
    value = (torch.rand(2), Plain(3), {"names": []})
    copy = copy_with_tensors(lambda tensor: tensor, value)
    copy[1].x = 5
    copy[2]["names"].append("x")
    assert value[1].x == 3
    assert value[2] == {"names": []}


def test_modules_functions_and_what_cannot_be_copied_are_shared():
    layer, lock, generator = nn.Linear(3, 2), threading.Lock(), torch.Generator()
    value = [torch.rand(2), layer, layer.forward, functools.partial(layer.forward), lock, generator, len, nn.Linear]
    assert [id(tensor) for tensor in tensors_inside(value)] == [id(value[0])]
    copy = copy_with_tensors(lambda tensor: 7, value)
    assert copy[0] == 7
    assert all(one is other for one, other in zip(copy[1:], value[1:], strict=True) if one != layer.forward)
    assert copy[2].__self__ is layer
