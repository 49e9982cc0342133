"""Graphs built inside of function transforms, compilers and modes of others."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from ghn_pyg import from_module


class Reader(nn.Module):
    """A language model with a mask and a condition on token ids, which both need values."""

    def __init__(self):
        super().__init__()
        self.embedding, self.norm, self.mix, self.head = (
            nn.Embedding(11, 7),
            nn.LayerNorm(7),
            nn.Linear(7, 7),
            nn.Linear(7, 3),
        )
        self.register_buffer("mask", torch.ones(5, 5).tril().bool())

    def forward(self, ids):
        x = self.mix(self.norm(self.embedding(ids)))
        scores = (x @ x.mT).masked_fill(~self.mask, -torch.inf).softmax(-1)
        doubled = torch.func.vmap(lambda row: 2 * row)(scores @ x)
        return self.head(F.dropout(doubled, 0.1).mean(1)) if (ids < 11).all() else ids


IDS = torch.arange(5)[None]
NODES = [
    "input",
    "embedding.weight",
    "norm.weight",
    "mix.weight",
    "mix.bias",
    "msa",
    "glob_avg",
    "head.weight",
    "head.bias",
]
TRANSFORMS = {
    "grad": lambda f: torch.func.grad(f)(torch.ones(3)),
    "vmap": lambda f: torch.func.vmap(f)(torch.ones(2, 3)),
    "jvp": lambda f: torch.func.jvp(f, (torch.ones(3),), (torch.ones(3),)),
    "jacrev": lambda f: torch.func.jacrev(f)(torch.ones(3)),
    "hessian": lambda f: torch.func.hessian(f)(torch.ones(3)),
    "functionalize": lambda f: torch.func.functionalize(f)(torch.ones(3)),
    "make_fx": lambda f: make_fx(f)(torch.ones(3)),
    "compile": lambda f: torch.compile(f, backend="eager")(torch.ones(3)),
    "vjp twice": lambda f: [torch.func.vjp(f, torch.ones(size))[1](torch.ones(())) for size in (3, 5)],
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_inside_of_a_transform(transform):
    model, graphs = Reader(), []

    def square(x):
        graphs.append(from_module(model, IDS))
        return (x**2).sum()

    transform(square)
    assert [graph.node_names for graph in graphs] == [NODES] * len(graphs)
    assert graphs
    assert all(not parameter.isnan().any() for parameter in model.parameters())


def test_inputs_of_a_transform_have_no_values():
    model, graphs = Reader(), []

    def total(ids):
        graphs.append(from_module(model, ids))
        return ids.sum()

    assert torch.func.vmap(total)(IDS.repeat(3, 1)[:, None]).tolist() == [10, 10, 10]
    assert graphs[0].node_names[:2] == NODES[:2]


@pytest.mark.parametrize(
    "mode",
    [lambda: FakeTensorMode(allow_non_fake_inputs=True), lambda: FlopCounterMode(display=False)],
    ids=["fake", "flops"],
)
def test_inside_of_a_mode(mode):
    model = Reader()
    with mode():
        graph = from_module(model, IDS)
    assert graph.node_names == NODES


def test_fake_networks_are_refused():
    with FakeTensorMode():
        model = Reader()
        with pytest.raises(ValueError, match="fake tensors"):
            from_module(model, IDS)
    with pytest.raises(ValueError, match="fake tensors"):
        from_module(model, IDS)
