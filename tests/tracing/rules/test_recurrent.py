"""Recurrent layers, and sequences of several lengths in one tensor."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

from ghn_pyg import from_module
from ghn_pyg.tracing.kept_reasons import Kept
from ghn_pyg.utils import compat
from tests.tracing.helpers import kinds, shapes, sources, weight
from tests.tracing.rules.helpers import graph_of

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
    assert graph.node_names == ["input", *(f"layer.{name}" for name in names)]
    assert kinds(graph)[1:] == [{"weight": "conv", "bias": "bias"}[name.partition("_")[0]] for name in names]


def test_a_long_sequence_takes_no_longer():
    assert kinds(from_module(nn.GRU(5, 7, bias=False), torch.empty(1_000_003, 1, 5, device="meta")))[1:] == ["conv"] * 2


def test_a_first_state_that_is_learned_is_kept():
    def forward(self, x):
        return self.memory(x, self.start.expand(-1, 3, -1).contiguous())[0]

    graph = graph_of(forward, X, start=weight(1, 1, 7), memory=nn.GRU(5, 7, batch_first=True))
    assert graph.kept == {"start": Kept.TOKEN}
    assert sources(graph)["memory.weight_ih_l0"] == ["input"]


def test_a_state_that_is_computed_enters_too():
    def forward(self, x):
        return self.memory(x[:, 1], self.a(x[:, 0]))

    graph = graph_of(forward, X, a=nn.Linear(5, 7, bias=False), memory=nn.RNNCell(5, 7))
    assert sources(graph)["memory.weight_ih"] == ["input", "a.weight"]


def test_parameters_that_a_network_gives_to_the_function_itself():
    def forward(self, x):
        return torch.gru(x, torch.zeros(1, 3, 7), [self.a, self.b], False, 1, 0.0, self.training, False, True)[0]

    graph = graph_of(forward, X, a=weight(21, 5), b=weight(21, 7))
    assert graph.node_names == ["input", "a", "b"]


WEIGHTS, BIASES = ["weight_ih_l0", "weight_hh_l0"], ["bias_ih_l0", "bias_hh_l0"]
norms = nn.utils.parametrizations
RECURRENT = {
    "LSTM": (lambda: nn.LSTM(5, 7), [*WEIGHTS, *BIASES]),
    "GRU": (lambda: nn.GRU(5, 7, bias=False), WEIGHTS),
    "RNN": (lambda: nn.RNN(5, 7, num_layers=2, bias=False), [*WEIGHTS, "weight_ih_l1", "weight_hh_l1"]),
    "both directions": (
        lambda: nn.LSTM(5, 7, bidirectional=True, bias=False), [*WEIGHTS, *(f"{name}_reverse" for name in WEIGHTS)]
    ),
    "with a projection": (lambda: nn.LSTM(5, 7, proj_size=3, bias=False), [*WEIGHTS, "weight_hr_l0"]),
    "weight norm": (
        lambda: norms.weight_norm(nn.LSTM(5, 7), WEIGHTS[1]),
        [WEIGHTS[0], "parametrizations.weight_hh_l0.original1", *BIASES],
    ),
    "weight norm of old": (
        lambda: nn.utils.weight_norm(nn.LSTM(5, 7), WEIGHTS[1]), [WEIGHTS[0], "weight_hh_l0_v", *BIASES]
    ),
    "spectral norm": (
        lambda: norms.spectral_norm(nn.LSTM(5, 7), WEIGHTS[1]),
        [WEIGHTS[0], "parametrizations.weight_hh_l0.original", *BIASES],
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("build", "expected"), RECURRENT.values(), ids=RECURRENT)
def test_recurrent_layers(build, expected):
    graph = from_module(build(), X)
    assert graph.node_names == ["input", *expected]
    assert kinds(graph)[1:] == ["bias" if name.startswith("bias") else "conv" for name in expected]
    assert set(graph.kept.values()) <= {Kept.MAGNITUDE}


def test_the_state_of_a_recurrent_layer_leads_on():
    def forward(self, x):
        _, (hidden, _) = self.memory(x)
        return self.head(hidden[-1])

    graph = graph_of(forward, X, memory=nn.LSTM(5, 7, bias=False), head=nn.Linear(7, 2, bias=False))
    assert graph.node_names == ["input", "memory.weight_ih_l0", "memory.weight_hh_l0", "head.weight"]


def test_lengths_that_activations_give_are_taken_as_whole():
    def forward(self, x):
        lengths = self.a(x).sum((1, 2)).long()
        data = compat.PACK_SEQUENCE[0](x, lengths, True)[0]
        return self.b(data) + data.shape[0]

    seen = graph_of(forward, X, a=nn.Linear(5, 5), b=nn.Linear(5, 3))
    assert sources(seen)["b.weight"] == ["input"]


def test_sequences_of_constants():
    def forward(self, x):
        inner = pack_sequence([torch.ones(3, 5), torch.ones(2, 5)])
        assert inner.batch_sizes.tolist() == [2, 2, 1]
        return self.a(x + inner.data.sum())

    assert kinds(graph_of(forward, X, a=nn.Linear(5, 3))) == ["input", "conv", "bias"]
