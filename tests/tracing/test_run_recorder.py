import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention.flex_attention import flex_attention

from ghn_pyg.graph import ArchData, ParamSpec
from ghn_pyg.tracing.run_recorder import RunRecorder
from ghn_pyg.tracing.unfused_operators import unfused
from ghn_pyg.utils.compat import run_uncompiled

INPUT = {0}


def weight(*shape):
    return nn.Parameter(torch.rand(shape))


def recorded(function, *inputs, buffers=(), **parameters):
    """What comes directly before each parameter, surely and perhaps; its role is the start of its name."""
    roles = {"w": "weight", "b": "bias", "g": "gain", "p": "position"}
    specs = [[ParamSpec(name, tuple(value.shape), roles[name[0]])] for name, value in parameters.items()]
    names = ["input", *parameters]
    recorder = RunRecorder(ArchData(params=[[], *specs]), parameters, buffers)
    for tensor in inputs:
        recorder.enter(tensor)
    try:
        with unfused(), run_uncompiled(), torch.no_grad(), recorder:
            function(*inputs, **parameters)
    finally:
        recorder.restore()
    before = {}
    for node in recorder.predecessors:
        certain, perhaps = recorder.before(node)
        before[names[node]] = ({names[n] for n in certain}, {names[n] for n in perhaps})
    return before, recorder


def certain(function, *inputs, **parameters):
    """What surely comes directly before each parameter, where nothing else may."""
    before, _ = recorded(function, *inputs, **parameters)
    assert all(not perhaps for _, perhaps in before.values())
    return {name: sure for name, (sure, _) in before.items()}


X = torch.rand(2, 3)
IDS = torch.tensor([2, 0, 1])


def test_layers_of_any_operator():
    w, b = weight(5, 3), weight(5)
    expected = {"w": {"input"}, "b": {"w"}}
    assert certain(lambda x, w, b: F.linear(x, w, b), X, w=w, b=b) == expected
    assert certain(lambda x, w, b: F.linear(x[None], w) + b, X, w=w, b=b) == expected
    assert certain(lambda x, w, b: torch.einsum("ni,oi->no", x, w).add_(b), X, w=w, b=b) == expected
    assert certain(lambda x, w, b: F.conv1d(x, w[:, :2, None], b), X, w=weight(5, 2), b=b) == expected
    assert certain(lambda x, w, b: (x[:, None] * w).sum(-1) + b, X, w=w, b=b) == expected


def test_what_a_weight_is_made_of():
    parts = {"w0": {"input"}, "w1": {"input"}, "w2": {"input"}, "b": {"w0", "w1", "w2"}}

    def low_rank(x, w0, w1, w2, b):
        F.linear(x, (w0 + w1 @ w2) / w0.norm(), b)

    assert certain(low_rank, X, w0=weight(5, 3), w1=weight(5, 2), w2=weight(2, 3), b=weight(5)) == parts


def test_memory_that_is_written_to():
    def write(x, w0, w1, w2):
        both = torch.zeros(2, 10)
        both[:, :5] = x @ w0
        both.data[:, 5:] = x @ w1
        first, _ = both.chunk(2, 1)
        first.mul_(2)
        both @ w2

    assert certain(write, X, w0=weight(3, 5), w1=weight(3, 5), w2=weight(10, 2))["w2"] == {"w0", "w1"}


def test_what_is_overwritten_is_forgotten():
    def overwrite(x, w0, w1, w2):
        value = x @ w0
        value.copy_(x @ w1)
        value @ w2

    assert certain(overwrite, X, w0=weight(3, 5), w1=weight(3, 5), w2=weight(5, 2))["w2"] == {"w1"}


def test_only_the_shape_of_a_tensor_counts():
    before = certain(
        lambda x, w0, w1: (torch.ones_like(x @ w0) + x @ w1[:3]) @ w1[3:], X, w0=weight(3, 2), w1=weight(5, 2)
    )
    assert before["w1"] == {"input"}


def test_a_shared_layer_is_passed_through():
    def twice(x, w0, w1, w2):
        (((x @ w0) @ w1) + (x @ w0) @ w1) @ w2
        return x @ w1

    before = certain(twice, X, w0=weight(3, 3), w1=weight(3, 3), w2=weight(3, 2))
    assert before == {"w0": {"input"}, "w1": {"w0"}, "w2": {"input", "w1"}}


def test_slices_of_one_parameter():
    def project(x, y, w0, w1, w2):
        (x @ w0[:3] + (y @ w1) @ w0[3:]) @ w2

    before, _ = recorded(project, X, X + 1, w0=weight(6, 5), w1=weight(3, 3), w2=weight(5, 2))
    assert before["w0"] == ({"input"}, {"w1"})
    assert before["w2"] == ({"w0"}, {"w0", "w1"})


def test_a_layer_on_a_constant():
    def step(x, w0, w1, w2, b):
        state = torch.zeros(2, 5)
        for _ in range(3):
            state = x @ w0 + (state @ w1 + b)
        state @ w2

    before, _ = recorded(step, X, w0=weight(3, 5), w1=weight(5, 5), w2=weight(5, 2), b=weight(5))
    assert before["w1"] == (set(), {"input", "w0", "w1", "b"})
    assert before["b"][0] == {"w1"}
    assert {"b", "input"} <= before["w2"][0]


def test_positions_and_ids():
    def look_up(ids, p0, p1, p2, w):
        (F.embedding(ids, p0) + F.embedding(torch.arange(3), p1) + p2) @ w

    before = certain(look_up, IDS, p0=weight(7, 5), p1=weight(4, 5), p2=weight(3, 5), w=weight(5, 2))
    assert before == {"p0": {"input"}, "p1": set(), "p2": set(), "w": {"p0", "p1", "p2"}}


def test_masks_of_ids_count_only_without_activations():
    def mask(x, ids, w0, w1):
        ((x @ w0) * (ids != 0)) @ w1

    assert certain(mask, X, torch.tensor([[0, 3]]), w0=weight(3, 2), w1=weight(2, 5))["w1"] == {"w0"}


def test_choices_count_only_without_activations():
    def choose(x, w0, w1, p):
        best = (x @ w0).argmax(-1)
        x[best] @ w1
        F.embedding(best, p)

    before, _ = recorded(choose, X, w0=weight(3, 2), w1=weight(3, 5), p=weight(2, 5))
    assert before["w1"] == ({"input"}, {"w0"})
    assert before["p"] == (set(), {"w0"})


def test_a_weight_that_activations_scale():
    def modulate(x, y, w0, w1, w2):
        scaled = w1 * (y @ w0)[0, :, None, None]
        F.conv2d(F.conv2d(x, scaled * scaled.square().sum().rsqrt()), w2)

    image = torch.rand(1, 2, 5, 5)
    before = certain(modulate, image, X, w0=weight(3, 2), w1=weight(5, 2, 1, 1), w2=weight(2, 5, 1, 1))
    assert before == {"w0": {"input"}, "w1": {"input", "w0"}, "w2": {"w1"}}


def test_sparse_tensors_and_tokens_of_an_expert():
    before = certain(
        lambda a, w0, w1: torch.sparse.mm(a, w0) @ w1, torch.eye(3).to_sparse(), w0=weight(3, 5), w1=weight(5, 2)
    )
    assert before == {"w0": {"input"}, "w1": {"w0"}}


def test_functions_of_torchscript():
    @torch.jit.script
    def gate(p, q):
        return torch.sigmoid(p) * torch.tanh(q)

    before = certain(
        lambda x, w0, w1, w2: gate(x @ w0, x @ w1) @ w2, X, w0=weight(3, 5), w1=weight(3, 5), w2=weight(5, 2)
    )
    assert before["w2"] == {"w0", "w1"}


def test_recurrent_layers_run_step_by_step():
    layer = nn.GRU(3, 5)
    w0, w1, b0, b1 = layer.parameters()

    def run(x, w0, w1, b0, b1, w2):
        layer(x)[0] @ w2

    before, _ = recorded(run, torch.rand(4, 2, 3), w0=w0, w1=w1, b0=b0, b1=b1, w2=weight(5, 2))
    assert {name: sure for name, (sure, _) in before.items()} == {
        "w0": {"input"}, "w1": set(), "b0": {"w0"}, "b1": {"w1"}, "w2": {"b0", "b1"},
    }  # fmt: skip


def test_roles():
    _, recorder = recorded(lambda x, w, g, b: x * b + w + g, X, w=weight(3), g=weight(3), b=weight(3))
    assert recorder.misused == {
        "w": "is a weight in the graph, and the run adds it to activations",
        "g": "is a gain in the graph, and the run adds it to activations",
        "b": "is a bias in the graph, and the run multiplies activations by it",
    }


@pytest.mark.parametrize("change", [torch.Tensor.zero_, lambda t: t.data.mul_(3), lambda t: t[:1].add_(1)])
def test_values_are_restored(change):
    w, buffer = weight(3, 5), torch.rand(7)
    values = w.detach().clone(), buffer.clone()

    def forward(x, w):
        change(w)
        change(buffer)
        return x @ w

    recorded(forward, X, buffers=[buffer], w=w)
    assert torch.equal(w, values[0])
    assert torch.equal(buffer, values[1])


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_operators_that_call_functions():
    def attend(x, w0, w1, w2, w3):
        query, key, value = ((x @ w).view(1, 2, 4, 3) for w in (w0, w1, w2))
        flex_attention(query, key, value).flatten(2) @ w3

    inputs = torch.rand(1, 2, 12)
    weights = {name: weight(12, 12) for name in ("w0", "w1", "w2", "w3")}
    assert certain(attend, inputs, **weights)["w3"] == {"w0", "w1", "w2"}
