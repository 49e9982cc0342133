import dataclasses

import networkx as nx
import pytest
import torch
from ghn_pyg.families.deepnets.graph import architecture_graph
from ghn_pyg.families.deepnets.layout import count_parameters
from ghn_pyg.families.deepnets.sampling import sample

from ghn_pyg.families.deepnets.architecture import Architecture
from ghn_pyg.families.deepnets.genotype import OPERATIONS, Genotype
from ghn_pyg.families.deepnets.statistics import (
    Measured,
    Summary,
    count_operations,
    longest_path,
    measure,
    measure_split,
    operation_shares,
    summarize,
)
from ghn_pyg.graph.arch_data import ArchData

GENOTYPE = Genotype((("conv_3x3", 0), ("cse", 1)), (2,), (("max_pool_3x3", 0), ("cse", 1)), (2,))


def measured(nodes, **operations):
    return Measured(nodes, 10 * nodes, 3, 2, operations)


def test_longest_path_of_unordered_edges():
    """0 → 1 → 3 → 4 and 0 → 2 → 4."""
    edges = torch.tensor([[3, 0, 2, 0, 1], [4, 2, 4, 1, 3]])
    assert longest_path(ArchData(edge_index=edges, num_nodes=5)) == 3
    assert longest_path(ArchData(edge_index=torch.empty(2, 0, dtype=torch.long), num_nodes=1)) == 0


@pytest.mark.parametrize("index", range(5))
def test_networkx_agrees(index):
    graph = architecture_graph(sample("train", index))
    assert longest_path(graph) == nx.dag_longest_path_length(graph.to_networkx())


def test_operations_count_in_every_cell():
    """Of seven cells two reduce."""
    counts = count_operations(Architecture(genotype=GENOTYPE, cells=7))
    assert counts == {"conv_3x3": 5, "cse": 7, "max_pool_3x3": 2}


def test_one_architecture():
    architecture = Architecture(genotype=GENOTYPE, cells=7, width=16)
    graph = architecture_graph(architecture, 3, 16)
    found = measure(architecture, 3, 16)
    assert found.nodes == graph.num_nodes
    assert found.parameters == count_parameters(architecture, 3, 16)
    assert found.cells == 7
    assert found.operations == count_operations(architecture)


def test_wide_networks_are_measured_wide():
    architecture = sample("wide", 3)
    (wide,) = measure_split("wide", [architecture])
    (same,) = measure_split("test", [architecture])
    assert wide.parameters == count_parameters(dataclasses.replace(architecture, width=128))
    assert same.parameters == count_parameters(architecture)


def test_summaries():
    found = summarize([measured(2), measured(3), measured(7)])
    assert found["nodes"] == Summary(4.0, pytest.approx((14 / 3) ** 0.5), 2, 3.0, 7)
    assert found["parameters"].largest == 70
    assert list(found) == ["nodes", "parameters", "depth", "cells"]
    with pytest.raises(ValueError, match="expected one architecture at least"):
        summarize([])


def test_shares_of_operations():
    shares = operation_shares([measured(2, cse=3, msa=1), measured(3, cse=4)])
    assert list(shares) == list(OPERATIONS)
    assert (shares["cse"], shares["msa"], shares["none"]) == (7 / 8, 1 / 8, 0)
    with pytest.raises(ValueError, match="expected one architecture at least"):
        operation_shares([])
