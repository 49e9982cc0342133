"""Graphs that a cache must not keep."""

import logging
import os
import random

import numpy as np
import pytest
import torch
from torch import nn

from ghn_pyg import GraphCache, from_module
from ghn_pyg.caching import cache as module
from ghn_pyg.caching.stored import same
from tests.caching.networks import X, small
from tests.graphs.tracing import network


def looks_at_statistics(self, x):
    x = self.a(x)
    return self.b(x) if self.norm.running_mean.sum() > 0 else self.b(self.b(x))


def looks_at_a_view(self, x):
    x = self.a(x)
    return self.b(x) if self.norm.running_mean[0].item() > 0 else self.b(self.b(x))


def looks_at_data(self, x):
    x = self.a(x)
    return self.b(x) if self.norm.running_mean.data.tolist()[0] > 0 else self.b(self.b(x))


def looks_at_an_array(self, x):
    x = self.a(x)
    return self.b(x) if self.norm.running_mean.numpy()[0] > 0 else self.b(self.b(x))


@pytest.mark.parametrize("forward", [looks_at_statistics, looks_at_a_view, looks_at_data, looks_at_an_array])
def test_graphs_that_depend_on_running_statistics(tmp_path, caplog, forward):
    cache = GraphCache(tmp_path)
    model = network(forward, a=nn.Linear(5, 7), b=nn.Linear(7, 7), norm=nn.BatchNorm1d(7))
    with caplog.at_level(logging.DEBUG, "ghn_pyg.caching.cache"):
        before = cache.from_module(model, X).num_nodes
        model.norm.running_mean.fill_(1)
        assert cache.from_module(model, X).num_nodes == before - 2
    assert "the graph of Network is not kept: its forward pass looks at running statistics" in caplog.text
    assert os.listdir(tmp_path) == []


def test_graphs_that_depend_on_gradients(tmp_path):
    def forward(self, x):
        if self.a.weight.grad is not None:
            return self.b(self.a(x))
        return self.a(x) if self.table.grad is None or self.table.grad.sum() > 0 else self.b(self.b(self.a(x)))

    cache, model = GraphCache(tmp_path), network(forward, a=nn.Linear(5, 7), b=nn.Linear(7, 7))
    model.__dict__["table"] = torch.zeros(3, requires_grad=True)
    sizes = [cache.from_module(model, X).num_nodes]
    for gradient in (torch.ones(3), -torch.ones(3)):
        model.table.grad = gradient
        sizes.append(cache.from_module(model, X).num_nodes)
    model.a.weight.grad = torch.ones(7, 5)
    sizes.append(cache.from_module(model, X).num_nodes)
    assert sizes == [3, 3, 7, 5]
    assert len(os.listdir(tmp_path)) == 4


def test_statistics_that_are_only_used_do_not_count(tmp_path, traces):
    cache, model = GraphCache(tmp_path), nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7))
    cache.from_module(model, X)
    model[1].running_mean.fill_(3)
    model[0].weight.grad = None
    cache.from_module(model, X)
    assert len(traces) == 1


def draws_from_torch(self, x):
    return self.a(x) if torch.zeros(1).bernoulli_(0.5).item() else self.a(self.a(x))


DRAWS = [
    draws_from_torch,
    lambda self, x: self.a(x) if torch.bernoulli(torch.full((1,), 0.5)) else self.a(self.a(x)),
    # Kept away from the fingerprint, which would refuse them: a package's code may draw from these.
    lambda self, x: self.a(x) if self.draw() > 0.5 else self.a(self.a(x)),
]


@pytest.mark.parametrize("draw", [0, 1, random.random, np.random.normal], ids=["in place", "new", "random", "numpy"])
def test_graphs_that_depend_on_random_numbers(tmp_path, monkeypatch, draw):
    model = network(DRAWS[draw if isinstance(draw, int) else 2], a=nn.Linear(5, 5))
    if not isinstance(draw, int):
        monkeypatch.setattr(nn.Linear, "draw", staticmethod(draw), raising=False)
        model = network(lambda self, x: self.a(x) if self.a.draw() > 0.5 else self.a(self.a(x)), a=nn.Linear(5, 5))
        monkeypatch.setattr(module, "fingerprint", lambda *_: module.Fingerprint("a" * 64, {}))
    cache = GraphCache(tmp_path)
    sizes = set()
    for seed in range(20):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        sizes.add(cache.from_module(model, X).num_nodes)
    assert sizes == {3, 5}
    assert os.listdir(tmp_path) == []


COUNTER = [0]


def test_networks_that_change_while_they_are_traced(tmp_path, caplog):
    def forward(self, x):
        COUNTER[0] += 1
        for _ in range(COUNTER[0]):
            x = self.a(x)
        return x

    cache, model = GraphCache(tmp_path), network(forward, a=nn.Linear(5, 5))
    with caplog.at_level(logging.DEBUG, "ghn_pyg.caching.cache"):
        assert [cache.from_module(model, X).num_nodes for _ in range(3)] == [3, 5, 7]
    assert "is not kept: it changed while it was traced" in caplog.text
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_known_is_traced_every_time(tmp_path, caplog, traces):
    cache, model = GraphCache(tmp_path), small()
    model.generator = torch.Generator()
    with caplog.at_level(logging.DEBUG, "ghn_pyg.caching.cache"):
        for _ in range(2):
            assert same(cache.from_module(model, X), from_module(model, X))
    assert len(traces) == 2
    assert "the graph of Sequential is not kept: Sequential: 'generator': an object of type torch" in caplog.text
    assert os.listdir(tmp_path) == []


def test_other_handlers_give_other_graphs(tmp_path, monkeypatch):
    from ghn_pyg import register_layer
    from ghn_pyg.graphs import layers

    monkeypatch.setattr(layers, "HANDLERS", dict(layers.HANDLERS))
    cache = GraphCache(tmp_path)
    shapes = [cache.from_module(small(), X).param_names]
    register_layer(nn.Linear)(lambda layer: [("conv", [("weight", "weight")])])
    shapes.append(cache.from_module(small(), X).param_names)
    assert shapes[1] == [[], ["0.weight"], ["2.weight"]]
    assert shapes[0] != shapes[1]
