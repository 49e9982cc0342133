"""What is written into a view is written into the tensor, and the other way round."""

import operator

import pytest
import torch

from tests.tracing.helpers import kinds, sources
from tests.tracing.rules.helpers import graph_of, linear

WRITES = {
    "slice": lambda a, b: operator.setitem(a, (slice(None), slice(0, 2)), b[:, :2]),
    "row": lambda a, b: a[:, 0].add_(b[:, 0]),
    "view": lambda a, b: a.view(3, 5).add_(b[0]),
    "flatten": lambda a, b: a.flatten(1).add_(b.flatten(1)),
    "transpose": lambda a, b: a.transpose(1, 2).add_(b.mT),
    "unsqueeze": lambda a, b: a.unsqueeze(0).add_(b),
    "permute": lambda a, b: a.permute(2, 0, 1).add_(b.permute(2, 0, 1)),
    "view of a view": lambda a, b: a.view(3, 5)[1].add_(b[0, 1]),
    "chunk": lambda a, b: a.chunk(2, 2)[0].add_(b.chunk(2, 2)[0]),
    "split": lambda a, b: a.split([2, 3], 2)[1].copy_(b[..., 2:]),
    "narrow": lambda a, b: a.narrow(1, 1, 2).add_(b[:, 1:]),
    "select": lambda a, b: a.select(1, 2).add_(b[:, 2]),
    "out": lambda a, b: torch.add(a, b, out=a),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_writing_into_a_view_writes_into_the_tensor(write):
    def forward(self, x):
        a, b = self.a(x), self.b(x)
        write(a, b)
        return self.c(a)

    graph = graph_of(forward, torch.zeros(1, 3, 5), a=linear(), b=linear(), c=linear(5, 2))
    found = sources(graph)
    behind = found[found["c.weight"][0]] if len(found["c.weight"]) == 1 else found["c.weight"]
    assert behind == ["a.weight", "b.weight"]


LATER = {
    "a view": lambda x: x.view(1, 15),
    "a part": lambda x: x[:, 1:].flatten(1).repeat(1, 2)[:, :15],
    "a view of a view": lambda x: x.transpose(1, 2)[:, 2:].reshape(1, 9).repeat(1, 2)[:, :15],
    "an expanded view": lambda x: x.narrow(1, 0, 1).expand(1, 3, 5).reshape(1, 15),
}


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("view", LATER.values(), ids=LATER)
def test_what_is_written_later_reaches_views_that_were_taken_before(view, constant):
    def forward(self, x):
        a = torch.zeros(1, 3, 5) if constant else self.a(x)
        part = a.narrow(1, 0, 3)
        a += self.b(x)
        return self.c(view(part))

    graph = graph_of(forward, torch.zeros(1, 3, 5), a=linear(), b=linear(), c=linear(15, 2))
    assert sources(graph)["c.weight"] == (["b.weight"] if constant else ["sum"])


def test_what_is_written_into_a_view_reaches_its_siblings():
    def forward(self, x):
        first, second = self.a(x).chunk(2, 2)
        first.add_(self.b(x)[..., :3])
        return self.c(second)

    graph = graph_of(forward, torch.zeros(1, 3, 5), a=linear(), b=linear(), c=linear(2, 2))
    assert kinds(graph) == ["input", "conv", "conv", "sum", "conv"]


def test_functions_over_a_dimension_see_layers():
    def forward(self, x):
        return self.b(torch.func.vmap(lambda row: self.a(row).relu())(x))

    graph = graph_of(forward, torch.zeros(2, 3, 5), a=linear(), b=linear(5, 2))
    assert kinds(graph) == ["input", "conv", "conv"]


@pytest.mark.parametrize("size", [5, 300_007])
def test_writing_into_a_new_tensor(size):
    def forward(self, x):
        out = torch.zeros(1, size, 5)
        out[:, :2] = self.a(x)[:, :2]
        out[:, 2:3].copy_(self.b(x)[:, 2:])
        return self.c(out)

    graph = graph_of(forward, torch.zeros(1, 3, 5), a=linear(), b=linear(), c=linear(5, 2))
    assert sources(graph)["c.weight"] == ["a.weight", "b.weight"]
