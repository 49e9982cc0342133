import pytest
import torch
from torch import nn

from ghn_pyg.zoo.without_memory import EmptyOnMeta, without_memory


@pytest.mark.parametrize("function", [torch.zeros, torch.ones, torch.rand, torch.randn])
def test_only_large_filled_tensors_lose_their_memory(function):
    with EmptyOnMeta():
        small, large, sized = function(1024, 1024), function(1024, 1025), function(size=(1025, 1024))
        drawn = function((1025, 1024), generator=torch.Generator()) if function is torch.rand else sized
    assert [tensor.device.type for tensor in (small, large, sized, drawn)] == ["cpu", "meta", "meta", "meta"]
    assert [tensor.shape for tensor in (small, large, sized)] == [(1024, 1024), (1024, 1025), (1025, 1024)]
    assert function(1024, 1025).device.type == "cpu"


def test_values_that_a_constructor_computes_with_stay():
    with EmptyOnMeta():
        rates = [rate.item() for rate in torch.linspace(0, 1, 3)]
        full = torch.full((1025, 1024), 3)
        layer = nn.MultiheadAttention(6, 2)
    assert rates == [0, 0.5, 1]
    assert (full.device.type, full.dtype) == ("meta", torch.int64)
    assert {parameter.device.type for parameter in layer.parameters() if parameter.dim() > 1} == {"meta"}


@pytest.mark.parametrize(
    "looks", [lambda t: t.item(), lambda t: t.numpy()[0], lambda t: nn.Linear(1, 1)(torch.ones(1))]
)
def test_what_looks_at_values_is_built_with_memory(looks):
    built = []
    without_memory(lambda: built.append(torch.empty(1)) or looks(built[-1]))
    assert [tensor.device.type for tensor in built] == ["meta", "cpu"]


@pytest.mark.parametrize("kind", [RuntimeError, TypeError, ValueError, KeyError])
def test_other_errors_come_at_once(kind):
    calls = []

    def build():
        calls.append(1)
        raise kind("wrong width")

    with pytest.raises(kind, match="wrong width"):
        without_memory(build)
    assert calls == [1]
