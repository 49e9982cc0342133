"""Graphs of random networks are those of their data flow."""

import pytest
import torch

from ghn_pyg import GHN, GHNConfig, from_module, verify
from tests.tracing.random_networks import TOKENS, RandomNetwork

X = torch.rand(2, TOKENS, 5)


@pytest.mark.parametrize(
    "first", [pytest.param(seed, marks=[pytest.mark.exhaustive] * (seed > 0)) for seed in range(0, 1000, 50)]
)
def test_graphs_have_the_nodes_and_edges_of_the_data_flow(first):
    ghn = GHN(GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2))
    for seed in range(first, first + 50):
        torch.manual_seed(seed)
        model = RandomNetwork(seed)
        graph, (nodes, edges) = from_module(model, X), model.expected()
        found = [
            (kind, tuple(spec.name for spec in params))
            for kind, params in zip(graph.node_types, graph.params, strict=True)
        ]
        assert found == nodes, seed
        assert {tuple(edge) for edge in graph.edge_index.t().tolist()} == edges, seed
        assert graph.kept == {}, seed
        assert verify(model, X, graph=graph), seed
        ghn.initialize(model, graph)
        assert model.eval()(X).isfinite().all(), seed
