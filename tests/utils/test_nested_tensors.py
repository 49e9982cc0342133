from typing import NamedTuple

import torch
from torch import Tensor

from ghn_pyg.utils.nested_tensors import map_tensors, tensors_in


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
