"""Recurrent layers, cells and loops: a graph without circles agrees with a run that depends on itself."""

import pytest
import torch
from torch import nn

from ghn_pyg import verify
from tests.tracing.helpers import network

L = nn.Linear
ROWS = torch.rand(2, 3)
TOKENS = torch.rand(2, 5, 3)


def recurrence(net, x):
    state = torch.zeros(2, 5)
    for step in x.unbind(1):
        state = torch.tanh(net.inner(step) + net.state(state))
    return net.out(state)


def decoder(net, x):
    outputs, (state, cell) = net.encoder(x)
    step, steps = outputs[:, -1, :3], []
    for _ in range(3):
        state, cell = net.cell(step, (state.reshape(2, 5), cell.reshape(2, 5)))
        step = net.out(state)
        steps.append(step)
    return torch.stack(steps, 1)


def of_packed(net, x):
    packed = nn.utils.rnn.pack_padded_sequence(net.inner(x), torch.tensor([5, 2]), batch_first=True)
    return net.out(net.layer(packed)[1][-1])


def last_of(layer, features):
    return network(lambda n, x: n.out(n.layer(n.inner(x))[0][:, -1]), inner=L(3, 2), layer=layer, out=L(features, 7))


RECURRENT = {
    "lstm": lambda: (last_of(nn.LSTM(2, 5, 2, batch_first=True, bidirectional=True), 10), TOKENS),
    "gru": lambda: (last_of(nn.GRU(2, 5, 2, batch_first=True), 5), TOKENS),
    "rnn": lambda: (last_of(nn.RNN(2, 5, batch_first=True), 5), TOKENS),
    "packed": lambda: (network(of_packed, inner=L(3, 2), layer=nn.GRU(2, 5, batch_first=True), out=L(5, 7)), TOKENS),
    "cell": lambda: (
        network(
            lambda n, x, y: n.out(n.cell(n.a(x), n.b(y))), a=L(3, 2), b=L(3, 5), cell=nn.GRUCell(2, 5), out=L(5, 7)
        ),
        (ROWS, ROWS + 1),
    ),
    "decoder": lambda: (
        network(decoder, encoder=nn.LSTM(3, 5, batch_first=True), cell=nn.LSTMCell(3, 5), out=L(5, 3)),
        TOKENS,
    ),
    "by hand": lambda: (network(recurrence, inner=L(3, 5), state=L(5, 5), out=L(5, 7)), TOKENS),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrences_agree_with_the_run(name):
    torch.manual_seed(3)
    result = verify(*RECURRENT[name]())
    assert result, str(result)
    assert result.not_exercised == ()
