import pytest
import torch
from torch import nn

from ghn_pyg.zoo import without_memory


@pytest.mark.parametrize("function", [torch.zeros, torch.ones, torch.rand, torch.randn])
def test_only_large_filled_tensors_lose_their_memory(function):
    tensors = without_memory(
        lambda: [
            function(1024, 1024),
            function(1024, 1025),
            function(size=(1025, 1024)),
            torch.rand((1025, 1024), generator=torch.Generator()),
        ]
    )
    assert [tensor.device.type for tensor in tensors] == ["cpu", "meta", "meta", "meta"]
    assert [tuple(tensor.shape) for tensor in tensors] == [(1024, 1024), (1024, 1025), (1025, 1024), (1025, 1024)]
    assert function(1024, 1025).device.type == "cpu"


def test_values_that_a_constructor_computes_with_are_kept():
    rates, full, layer = without_memory(
        lambda: (
            [rate.item() for rate in torch.linspace(0, 1, 3)],
            torch.full((1025, 1024), 3),
            nn.MultiheadAttention(6, 2),
        )
    )
    assert rates == [0, 0.5, 1]
    assert (full.device.type, full.dtype) == ("meta", torch.int64)
    assert {parameter.device.type for parameter in layer.parameters() if parameter.dim() > 1} == {"meta"}


@pytest.mark.parametrize("read", [lambda t: t.item(), lambda t: t.numpy()[0], lambda t: nn.Linear(1, 1)(torch.ones(1))])
def test_a_constructor_that_reads_missing_values_runs_again_with_memory(read):
    tensors = []
    without_memory(lambda: tensors.append(torch.empty(1)) or read(tensors[-1]))
    assert [tensor.device.type for tensor in tensors] == ["meta", "cpu"]


@pytest.mark.parametrize("error", [RuntimeError, TypeError, ValueError, KeyError])
def test_other_errors_are_raised_at_once(error):
    calls = []

    def build():
        calls.append(1)
        raise error("wrong width")

    with pytest.raises(error, match="wrong width"):
        without_memory(build)
    assert calls == [1]


def test_large_layers_are_not_initialised():
    layer = without_memory(lambda: nn.init.trunc_normal_(nn.Linear(3, 5).weight))
    assert layer.is_meta
    assert without_memory(lambda: torch.zeros(3).fill_(7)).tolist() == [7, 7, 7]
