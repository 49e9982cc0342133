"""Recurrent layers, and sequences of several lengths in one tensor."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

from ghn_pyg import from_module, verify
from ghn_pyg.tracing.kept_reasons import Kept
from ghn_pyg.utils import compat
from tests.tracing.helpers import kinds, network, shapes, sources, weight
from tests.tracing.rules.helpers import graph_of, linear

X = torch.rand(3, 7, 5)
LENGTHS = torch.tensor([7, 3, 2])


def packed(x, lengths, layer, batch_first, enforce_sorted=True, total_length=None):
    """The shapes on the way through a layer."""
    inner = pack_padded_sequence(x, lengths, batch_first=batch_first, enforce_sorted=enforce_sorted)
    out, state = layer(inner)
    padded, found = pad_packed_sequence(out, batch_first=batch_first, total_length=total_length)
    return inner.data, inner.batch_sizes, out.data, padded, found, *(state if isinstance(state, tuple) else (state,))


LAYERS = [(nn.LSTM, {}), (nn.LSTM, {"proj_size": 2}), (nn.GRU, {}), (nn.RNN, {}), (nn.RNN, {"nonlinearity": "relu"})]


@pytest.mark.parametrize(("cls", "options"), LAYERS)
@pytest.mark.parametrize(
    ("batch_first", "lengths", "enforce_sorted", "total"),
    [(True, LENGTHS, True, None), (False, LENGTHS[[1, 0, 2]], False, None), (True, LENGTHS.tolist(), True, 11)],
)
def test_the_shapes_are_those_that_pytorch_computes(cls, options, batch_first, lengths, enforce_sorted, total):
    layer = cls(5, 11, 2, batch_first=batch_first, bidirectional=True, **options)
    x = X if batch_first else X.transpose(0, 1)
    expected = packed(x, lengths, layer, batch_first, enforce_sorted, total)
    seen = []

    def forward(self, x):
        seen.extend(packed(x, lengths, self.layer, batch_first, enforce_sorted, total))
        return self.head(seen[3])

    graph = graph_of(forward, x, layer=layer, head=nn.Linear(expected[3].shape[-1], 2))
    assert graph.kept == {}
    assert [(tensor.shape, tensor.dtype) for tensor in seen] == [(tensor.shape, tensor.dtype) for tensor in expected]
    assert sources(graph)["head.weight"] == [graph.node_names[-3]]
    assert seen[1].tolist() == expected[1].tolist()
    assert seen[4].tolist() == expected[4].tolist()


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(("cls", "options"), LAYERS)
@pytest.mark.parametrize("shape", [(3, 7, 5), (7, 5)], ids=["batched", "unbatched"])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("given", [True, False])
def test_sequences_of_one_length_have_the_shapes_that_pytorch_computes(cls, options, shape, batch_first, given):
    layer = cls(5, 11, 2, batch_first=batch_first, bidirectional=True, **options)
    x = torch.rand(shape)
    states = layer(x)[1:] if given else ()
    expected, seen = shapes(layer(x, *states)), []

    def forward(self, *inputs):
        seen.extend(shapes(found := self.layer(*inputs)))
        return found

    assert graph_of(forward, (x, *states), layer=layer).kept == {}
    assert seen == expected


@pytest.mark.parametrize("cls", [nn.LSTMCell, nn.GRUCell, nn.RNNCell, partial(nn.RNNCell, nonlinearity="relu")])
@pytest.mark.parametrize("shape", [(3, 5), (5,)])
@pytest.mark.parametrize("bias", [True, False])
def test_cells_have_the_shapes_that_pytorch_computes(cls, shape, bias):
    layer, seen = cls(5, 11, bias=bias), []

    def forward(self, x):
        seen.extend(shapes(found := self.layer(x)))
        return found

    graph = graph_of(forward, torch.rand(shape), layer=layer)
    assert seen == shapes(layer(torch.rand(shape)))
    names = ["weight_ih", "bias_ih", "weight_hh", "bias_hh"] if bias else ["weight_ih", "weight_hh"]
    assert graph.node_names == ["input", *(f"layer.{name}" for name in names), "layer:sum"]
    assert kinds(graph)[1:-1] == [{"weight": "conv", "bias": "bias"}[name.partition("_")[0]] for name in names]


def test_a_long_sequence_takes_no_longer():
    graph = from_module(nn.GRU(5, 7, bias=False), torch.empty(1_000_003, 1, 5, device="meta"))
    assert kinds(graph) == ["input", "conv", "conv", "sum"]


def test_a_first_state_that_is_learned_is_kept():
    def forward(self, x):
        return self.memory(x, self.start.expand(-1, 3, -1).contiguous())[0]

    graph = graph_of(forward, X, start=weight(1, 1, 7), memory=nn.GRU(5, 7, batch_first=True))
    assert graph.kept == {"start": Kept.TOKEN}
    assert sources(graph)["memory.weight_ih_l0"] == ["input"]


# The cell, how many tensors its state has, and whether a part of it is added to the new one.
CELLS = {"RNN": (nn.RNNCell, 1, False), "GRU": (nn.GRUCell, 1, True), "LSTM": (nn.LSTMCell, 2, True)}


@pytest.mark.parametrize(("cls", "count", "carries"), CELLS.values(), ids=CELLS)
def test_a_cell_sees_its_input_and_its_state_side_by_side(cls, count, carries):
    def forward(self, x, y):
        states = [layer(y) for layer in self.states[:count]]
        new = self.cell(self.a(x), states[0] if count == 1 else tuple(states))
        return self.head(new if count == 1 else new[0])

    states = nn.ModuleList(nn.Linear(3, 7, bias=False) for _ in range(count))
    members = {"a": nn.Linear(5, 11), "states": states, "cell": cls(11, 7), "head": nn.Linear(7, 2)}
    found = sources(graph_of(forward, (torch.rand(2, 5), torch.rand(2, 3)), **members))
    assert found["cell.weight_ih"] == ["a.bias"]
    assert found["cell.weight_hh"] == ["states.0.weight"]
    assert found["cell:sum"] == ["cell.bias_ih", "cell.bias_hh"]
    assert found["head.weight"] == ["cell:sum#2" if carries else "cell:sum"]
    if carries:
        assert sorted(found["cell:sum#2"]) == sorted(["cell:sum", f"states.{count - 1}.weight"])


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU, nn.RNN])
def test_the_state_of_a_layer_is_given_or_computed_from_its_input(cls, given):
    def forward(self, x, y):
        state = self.h(y)[None]
        return (
            self.memory(self.a(x), (state, state) if cls is nn.LSTM else state)[0]
            if given
            else self.memory(self.a(x))[0]
        )

    members = {"a": nn.Linear(5, 11), "h": nn.Linear(3, 7), "memory": cls(11, 7)}
    found = sources(graph_of(forward, (torch.rand(13, 2, 5), torch.rand(2, 3)), **members))
    assert found["memory.weight_ih_l0"] == ["a.bias"]
    assert found["memory.weight_hh_l0"] == (["h.bias"] if given else ["a.bias"])
    assert found["memory:sum"] == ["memory.bias_ih_l0", "memory.bias_hh_l0"]


def test_directions_are_side_by_side_and_layers_one_after_the_other():
    graph = from_module(nn.GRU(5, 7, num_layers=2, bidirectional=True, bias=False), X)
    found = sources(graph)
    assert kinds(graph).count("concat") == kinds(graph).count("sum") // 2 == 2
    for layer, before, *into in ((0, "input", "sum", "sum#2"), (1, "concat", "sum#3", "sum#4")):
        for end, joined in zip(("", "_reverse"), into, strict=True):
            pair = [f"weight_ih_l{layer}{end}", f"weight_hh_l{layer}{end}"]
            assert [found[name] for name in pair] == [[before], [before]]
            assert found[joined] == pair
    assert found["concat"] == ["sum", "sum#2"]
    assert found["concat#2"] == ["sum#3", "sum#4"]
    assert graph.node_names[-1] == "concat#2"


def test_a_cell_in_a_loop_has_the_predecessors_of_its_first_real_state():
    def forward(self, x):
        state = torch.zeros(3, 7)
        for step in range(3):
            state = self.cell(self.a(x[:, step]), state)
        return self.head(state)

    members = {"a": nn.Linear(5, 11), "cell": nn.GRUCell(11, 7), "head": nn.Linear(7, 2)}
    graph = graph_of(forward, X, **members)
    found = sources(graph)
    assert found["cell.weight_ih"] == ["a.bias"]
    assert found["cell.weight_hh"] == ["cell.bias_ih"]  # the first step's state is a constant
    assert found["cell.bias_hh"] == ["cell.weight_hh"]
    assert not graph.kept


def test_parameters_that_a_network_gives_to_the_function_itself():
    def forward(self, x):
        return torch.gru(x, torch.zeros(1, 3, 7), [self.a, self.b], False, 1, 0.0, self.training, False, True)[0]

    graph = graph_of(forward, X, a=weight(21, 5), b=weight(21, 7))
    assert graph.node_names == ["input", "a", "b", "sum"]


norms = nn.utils.parametrizations
IN, OUT, OF_IN, OF_OUT = "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"
RECURRENT = {
    "LSTM": (lambda: nn.LSTM(5, 7), [IN, OF_IN, OUT, OF_OUT, "sum"]),
    "GRU": (lambda: nn.GRU(5, 7, bias=False), [IN, OUT, "sum"]),
    "RNN": (
        lambda: nn.RNN(5, 7, num_layers=2, bias=False), [IN, OUT, "sum", "weight_ih_l1", "weight_hh_l1", "sum#2"]
    ),
    "both directions": (
        lambda: nn.LSTM(5, 7, bidirectional=True, bias=False),
        [IN, OUT, "sum", f"{IN}_reverse", f"{OUT}_reverse", "sum#2", "concat"],
    ),
    "with a projection": (lambda: nn.LSTM(5, 7, proj_size=3, bias=False), [IN, OUT, "sum", "weight_hr_l0"]),
    "weight norm": (
        lambda: norms.weight_norm(nn.LSTM(5, 7), OUT),
        [IN, OF_IN, "parametrizations.weight_hh_l0.original1", OF_OUT, "sum"],
    ),
    "weight norm of old": (
        lambda: nn.utils.weight_norm(nn.LSTM(5, 7), OUT), [IN, OF_IN, "weight_hh_l0_v", OF_OUT, "sum"]
    ),
    "spectral norm": (
        lambda: norms.spectral_norm(nn.LSTM(5, 7), OUT),
        [IN, OF_IN, "parametrizations.weight_hh_l0.original", OF_OUT, "sum"],
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("build", "expected"), RECURRENT.values(), ids=RECURRENT)
def test_recurrent_layers(build, expected):
    graph = from_module(build(), X)
    assert graph.node_names == ["input", *expected]
    types = {"bias": "bias", "sum": "sum", "sum#2": "sum", "concat": "concat"}
    assert kinds(graph)[1:] == [types.get(name.partition("_")[0], "conv") for name in expected]
    assert set(graph.kept.values()) <= {Kept.MAGNITUDE}


def test_the_state_of_a_recurrent_layer_leads_on():
    def forward(self, x):
        _, (hidden, _) = self.memory(x)
        return self.head(hidden[-1])

    graph = graph_of(forward, X, memory=nn.LSTM(5, 7, bias=False), head=nn.Linear(7, 2, bias=False))
    assert graph.node_names == ["input", "memory.weight_ih_l0", "memory.weight_hh_l0", "memory:sum", "head.weight"]


def test_lengths_that_activations_give_are_taken_as_whole():
    def forward(self, x):
        lengths = self.a(x).sum((1, 2)).long()
        (pack,) = compat.PACK_SEQUENCE
        data = pack(x, lengths, True)[0]
        return self.b(data) + data.shape[0]

    seen = graph_of(forward, X, a=nn.Linear(5, 5), b=nn.Linear(5, 3))
    assert sources(seen)["b.weight"] == ["input"]


def test_sequences_of_constants():
    def forward(self, x):
        inner = pack_sequence([torch.ones(3, 5), torch.ones(2, 5)])
        assert inner.batch_sizes.tolist() == [2, 2, 1]
        return self.a(x + inner.data.sum())

    assert kinds(graph_of(forward, X, a=nn.Linear(5, 3))) == ["input", "conv", "bias"]


def test_a_layer_on_a_constant_that_another_layer_depends_on_stays_where_it_is():
    def forward(self, x):
        state = torch.zeros(3, 5)
        for layer in self.layers:
            x = layer(x)
            state = torch.tanh(self.of_input(x) + self.of_state(state).sigmoid())
            x = x * state
        return x

    model = network(forward, layers=nn.ModuleList(linear() for _ in range(3)), of_input=linear(), of_state=linear())
    graph = from_module(model, torch.rand(3, 5))
    assert sources(graph)["of_state.weight"] == ["input"]
    assert sources(graph)["layers.1.weight"] == ["layers.0.weight", "sum"]
    assert sources(graph)["sum"] == ["of_input.weight", "of_state.weight"]
    assert verify(model, torch.rand(3, 5))
