"""Sequences of several lengths in one tensor."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

from ghn_pyg import from_module
from ghn_pyg.graphs import rules_packed
from ghn_pyg.graphs.tracer import RULES
from tests.graphs.tracing import kinds, network, sources

X = torch.rand(3, 7, 5)
LENGTHS = torch.tensor([7, 3, 2])


def packed(x, lengths, layer, batch_first, enforce_sorted=True, total_length=None):
    """The shapes on the way through a layer."""
    inner = pack_padded_sequence(x, lengths, batch_first=batch_first, enforce_sorted=enforce_sorted)
    out, state = layer(inner)
    padded, found = pad_packed_sequence(out, batch_first=batch_first, total_length=total_length)
    return inner.data, inner.batch_sizes, out.data, padded, found, *(state if isinstance(state, tuple) else (state,))


LAYERS = [
    (nn.LSTM, {}),
    (nn.LSTM, {"proj_size": 2}),
    (nn.GRU, {}),
    (nn.RNN, {}),
    (nn.RNN, {"nonlinearity": "relu"}),
]


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

    graph = from_module(network(forward, layer=layer, head=nn.Linear(expected[3].shape[-1], 2)), x)
    assert graph.kept == {}
    assert [(tensor.shape, tensor.dtype) for tensor in seen] == [(tensor.shape, tensor.dtype) for tensor in expected]
    assert seen[1].tolist() == expected[1].tolist()
    assert seen[4].tolist() == expected[4].tolist()


def test_every_rule_is_one_of_the_functions_that_packing_calls():
    own = {function.__name__ for function, rule in RULES.items() if rule.__module__ == rules_packed.__name__}
    assert own == {"_pack_padded_sequence", "_pad_packed_sequence", "lstm", "gru", "rnn_tanh", "rnn_relu"}


def test_a_packed_recurrent_network():
    def forward(self, x):
        out, _ = pad_packed_sequence(self.memory(pack_padded_sequence(x, LENGTHS, batch_first=True))[0], True)
        return self.head(out[:, -1])

    graph = from_module(network(forward, memory=nn.LSTM(5, 11, batch_first=True), head=nn.Linear(11, 2)), X)
    assert kinds(graph) == ["input", "conv", "conv", "bias", "bias", "conv", "bias"]
    assert sources(graph)["head.weight"] == ["memory.bias_hh_l0"]


def test_lengths_that_activations_give_are_taken_as_whole():
    def forward(self, x):
        lengths = self.a(x).sum((1, 2)).long()
        data = torch._VF._pack_padded_sequence(x, lengths, True)[0]
        return self.b(data) + data.shape[0]

    seen = from_module(network(forward, a=nn.Linear(5, 5), b=nn.Linear(5, 3)), X)
    assert sources(seen)["b.weight"] == ["input"]


def test_sequences_of_constants():
    def forward(self, x):
        inner = pack_sequence([torch.ones(3, 5), torch.ones(2, 5)])
        assert inner.batch_sizes.tolist() == [2, 2, 1]
        return self.a(x + inner.data.sum())

    assert kinds(from_module(network(forward, a=nn.Linear(5, 3)), X)) == ["input", "conv", "bias"]
