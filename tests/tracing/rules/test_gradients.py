"""Gradients and function transforms inside of a forward pass."""

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import nn
from torch.utils.checkpoint import checkpoint

from ghn_pyg import from_module, verify
from tests.tracing.helpers import network, sources, weight
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


def forward_mode(self, x):
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        hidden, tangent = forward_ad.unpack_dual(self.b(torch.tanh(self.a(dual))))
    return self.c(hidden + tangent)


def inner(self):
    return lambda x: self.b(torch.tanh(self.a(x)))


# Forward passes in which the last layer takes what a function transform leaves.
TRANSFORMS = {
    "jvp": lambda self, x: self.c(torch.func.jvp(inner(self), (x,), (x,))[0]),
    "tangents of jvp": lambda self, x: self.c(torch.func.jvp(inner(self), (x,), (x,))[1]),
    "make_dual": forward_mode,
    "vjp": lambda self, x: self.c(torch.func.vjp(inner(self), x)[0]),
    "gradients of vjp": lambda self, x: self.c(torch.func.vjp(inner(self), x)[1](torch.ones_like(x))[0]),
    "functional.vjp": lambda self, x: self.c(torch.autograd.functional.vjp(inner(self), x, torch.ones_like(x))[1]),
    "functional.jvp": lambda self, x: self.c(torch.autograd.functional.jvp(inner(self), x, torch.ones_like(x))[1]),
    "jacrev": lambda self, x: self.c(torch.func.jacrev(inner(self))(x[0])),
    "jacfwd": lambda self, x: self.c(torch.func.jacfwd(inner(self))(x[0])),
    "hessian": lambda self, x: self.c(torch.func.hessian(lambda x: inner(self)(x).sum())(x[0])),
    "vmap": lambda self, x: self.c(torch.vmap(inner(self))(x)),
    "checkpoint": lambda self, x: self.c(checkpoint(inner(self), x, use_reentrant=False)),
}


@pytest.mark.parametrize("forward", TRANSFORMS.values(), ids=TRANSFORMS)
def test_what_a_function_transform_leaves_depends_on_the_function(forward):
    model = network(forward, a=linear(), b=linear(), c=linear())
    graph = from_module(model, X)
    assert graph.node_names == ["input", "a.weight", "b.weight", "c.weight"]
    assert sources(graph)["c.weight"] == ["b.weight"]
    assert verify(model, X, graph)


def test_a_step_down_a_gradient_agrees_with_a_run():
    def forward(self, x):
        with torch.enable_grad():
            y = torch.zeros(2, 5, requires_grad=True)
            for _ in range(2):
                energy = self.b(torch.tanh(self.a(x) + y)).sum()
                y = y - torch.autograd.grad(outputs=energy, inputs=y, create_graph=True)[0]
        return self.c(y)

    assert verify(network(forward, a=linear(), b=linear(5, 1), c=linear()), X)


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
