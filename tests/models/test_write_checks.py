"""Networks that cannot be written whole are refused before anything is written."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghn_pyg import from_module, load_prediction, recalibrate
from ghn_pyg.models.write_checks import check_writable
from tests.models.ghns import make
from tests.tracing.helpers import network

X = torch.rand(2, 5)


class Packed(Tensor):
    """A weight of eight bits, which computes but takes no new values."""

    @staticmethod
    def __new__(cls, integers):
        return Tensor._make_wrapper_subclass(cls, integers.shape, dtype=torch.float32)

    def __init__(self, integers):
        self.integers = integers

    def __repr__(self):
        return "Packed"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.detach.default:
            return cls(args[0].integers)
        raise NotImplementedError(str(func))


class Named(nn.Parameter):
    """A parameter of another class, which takes new values."""


def made_in_inference_mode():
    with torch.inference_mode():
        return torch.rand(5, 5)


def freed():
    tensor = torch.rand(5, 5)
    tensor.untyped_storage().resize_(0)
    return tensor


REFUSED = {
    "expanded": (lambda: torch.rand(1, 5).expand(5, 5), "several of its elements share memory"),
    "overlapping": (lambda: torch.rand(9).as_strided((5, 5), (1, 1)), "several of its elements share memory"),
    "inference": (made_in_inference_mode, "it was made in inference mode"),
    "without memory": (freed, "its memory is freed"),
    "of a class that takes no values": (
        lambda: Packed(torch.ones(5, 5, dtype=torch.int8)), "a Packed does not take new values",
    ),
}  # fmt: skip


def around(tensor):
    """A network whose middle weight is this tensor, and with statistics."""
    parameter = tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor, requires_grad=False)
    return network(
        lambda self, x: self.o(self.n(F.linear(self.a(x), self.c))), a=nn.Linear(5, 5), c=parameter,
        n=nn.BatchNorm1d(5), o=nn.Linear(5, 2),
    )  # fmt: skip


def state_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items() if name != "c"}


@pytest.mark.parametrize(("build", "fault"), REFUSED.values(), ids=REFUSED)
def test_nothing_is_written_if_a_parameter_cannot_be(build, fault):
    model = around(build())
    before, graph, ghn = state_of(model), from_module(model, X), make()
    message = rf"nothing is written, because parts of Network cannot be: c \({fault}.*clone\(\)"
    prediction = {name: torch.zeros(tensor.shape) for name, tensor in model.named_parameters()}
    for write in (
        lambda: ghn(model, X), lambda: ghn.initialize(model, graph), lambda: load_prediction(model, prediction),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            write()
    after = state_of(model)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_files_that_are_mapped_for_reading(tmp_path):
    np.ones((5, 5), dtype=np.float32).tofile(tmp_path / "weight")
    mapped = np.memmap(tmp_path / "weight", dtype=np.float32, mode="r", shape=(5, 5))
    with pytest.warns(UserWarning, match="not writable"):
        model = around(torch.from_numpy(mapped))
    before = state_of(model)
    with pytest.raises(ValueError, match=r"c \(its memory is read-only\)"):
        make()(model, X)
    after = state_of(model)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize(
    "build",
    [
        lambda: torch.rand(10, 5)[::2], lambda: torch.rand(5, 7)[:, 2:], lambda: torch.rand(5, 5).t(),
        lambda: Named(torch.rand(5, 5)), lambda: torch.rand(5, 5, dtype=torch.bfloat16).float(),
    ],
)  # fmt: skip
def test_views_and_other_classes_are_written(build):
    model, ghn = around(build()), make()
    expected = ghn.predict(from_module(model, X))["c"]
    assert torch.equal(ghn(model, X).c, expected)


def test_clones_are_written_as_the_message_says():
    model = around(torch.rand(1, 5).expand(5, 5))
    model.c = nn.Parameter(model.c.detach().clone())
    assert make()(model, X)(X).isfinite().all()


def test_parameters_that_keep_their_values_need_not_be_writable():
    model = around(torch.rand(5, 5))
    model.unused = nn.Parameter(torch.rand(1).expand(3))
    model.o.weight = nn.Parameter(torch.rand(1, 5).expand(2, 5))
    kept = model.o.weight.detach().clone()
    make()(model, X, keep_classifier=True)
    assert torch.equal(model.o.weight, kept)
    with pytest.raises(ValueError, match=r"cannot be: o\.weight"):
        make()(model, X)


def test_inference_mode_allows_its_own_tensors():
    model = around(made_in_inference_mode())
    with torch.inference_mode():
        assert make()(model, X)(X).isfinite().all()


def test_empty_and_single_elements_are_writable():
    check_writable(nn.Identity(), {"a": torch.rand(0, 5).expand(3, 0, 5), "b": torch.rand(()), "c": torch.rand(1, 1)})


def test_statistics_that_cannot_be_written():
    model = nn.Sequential(nn.BatchNorm1d(5), nn.BatchNorm1d(5))
    model[1].running_mean = torch.zeros(1).expand(5)
    before = model[0].running_mean.clone()
    with pytest.raises(ValueError, match=r"nothing is written, .* Sequential cannot be: 1\.running_mean \(several"):
        recalibrate(model, [X])
    assert torch.equal(model[0].running_mean, before)


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64])
def test_graphs_of_a_network_with_other_types(dtype):
    model = around(torch.ones(5, 5))
    graph = from_module(model, X)
    other = around(torch.ones(5, 5, dtype=dtype))
    before = state_of(other)
    with pytest.raises(ValueError, match="the graph has c, which must keep its values: its elements are"):
        make().initialize(other, graph)
    with pytest.raises(ValueError, match="the prediction has c, which must keep its values: its elements are"):
        load_prediction(other, {"a.bias": torch.zeros(5), "c": torch.zeros(5, 5)})
    after = state_of(other)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    load_prediction(other, {"c": torch.full((5, 5), 3, dtype=dtype)})
    assert (other.c == 3).all()
