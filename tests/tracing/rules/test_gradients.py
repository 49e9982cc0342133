"""Gradients and function transforms inside of a forward pass."""

import pytest
import torch
from torch import nn

from tests.tracing.helpers import sources, weight
from tests.tracing.rules.helpers import graph_of, linear

X = torch.rand(2, 5)


def energy(self, x):
    return self.b(torch.tanh(self.a(x))).sum()


def by_grad(self, x):
    with torch.enable_grad():
        x = x.requires_grad_(True)
        (force,) = torch.autograd.grad(energy(self, x), x, create_graph=True)
    return self.c(force)


def by_backward(self, x):
    with torch.enable_grad():
        x = x.detach()
        x.requires_grad = True
        energy(self, x).backward()
    return self.c(x.grad)


def by_func(self, x):
    return self.c(torch.func.grad(lambda x: energy(self, x))(x))


@pytest.mark.parametrize("forward", [by_grad, by_backward, by_func])
def test_a_gradient_depends_on_what_is_differentiated(forward):
    graph = graph_of(forward, X, a=linear(), b=linear(5, 1), c=linear())
    assert graph.kept == {}
    assert sources(graph)["c.weight"] == ["b.weight"]


def test_gradients_of_a_batch_of_vectors_are_a_batch():
    def forward(self, x):
        with torch.enable_grad():
            x = x.requires_grad_(True)
            y, vectors = self.a(x), torch.eye(10).view(10, 2, 5)
            (rows,) = torch.autograd.grad(y, x, vectors, is_grads_batched=True)
        return self.b(rows.flatten(1))

    graph = graph_of(forward, X, a=linear(), b=linear(10, 3))
    assert sources(graph)["b.weight"] == ["a.weight"]


def test_a_hook_on_a_gradient_is_not_called():
    def forward(self, x):
        hidden = self.a(x)
        hidden.register_hook(lambda gradient: 1 / 0).remove()
        hidden.retain_grad()
        return hidden

    assert graph_of(forward, X, a=linear()).kept == {}


@pytest.mark.parametrize(("in_dims", "shape"), [(0, (3, 5, 7)), (2, (5, 7, 3))])
def test_matrices_that_vmap_maps_over_are_a_stack(in_dims, shape):
    def forward(self, x):
        return self.c(torch.vmap(lambda w, b: torch.tanh(x @ w + b), in_dims=(in_dims, 0))(self.w, self.b).mean(0))

    graph = graph_of(forward, X, w=weight(*shape), b=weight(3, 7), c=linear(7, 2))
    (spec,) = graph.params[graph.node_names.index("w")]
    assert spec.shape == shape
    assert (spec.stacked, spec.axes) == ((1, "") if in_dims == 0 else (0, "ios"))


def test_layers_of_a_functional_call():
    def forward(self, x):
        return torch.func.functional_call(self.a, {"weight": self.w}, (x,))

    graph = graph_of(forward, X, a=nn.Linear(5, 7), w=weight(7, 5))
    assert graph.node_names == ["input", "w", "a.bias"]
    assert list(graph.kept) == ["a.weight"]
