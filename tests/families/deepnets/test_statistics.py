import networkx as nx
import pytest

from ghn_pyg.families.deepnets import (
    OPERATIONS,
    Architecture,
    Genotype,
    Measured,
    Summary,
    architecture_graph,
    count_parameters,
    measure,
    measure_split,
    operation_shares,
    sample,
    summarize,
)

GENOTYPE = Genotype((("conv_3x3", 0), ("cse", 1)), (2,), (("max_pool_3x3", 0), ("cse", 1)), (2,))


def measured(nodes, **operations):
    return Measured(nodes, 10 * nodes, 3, 2, operations)


def test_one_architecture():
    architecture = Architecture(genotype=GENOTYPE, cells=7, width=16)
    graph, one = architecture_graph(architecture, 3, 16), measure(architecture, 3, 16)
    assert (one.nodes, one.cells) == (graph.num_nodes, 7)
    assert one.parameters == count_parameters(architecture, 3, 16)
    assert one.depth == nx.dag_longest_path_length(graph.to_networkx())
    assert one.operations == {"conv_3x3": 5, "cse": 7, "max_pool_3x3": 2}  # two of seven cells reduce


def test_networks_of_the_wide_split_are_measured_at_their_width():
    architecture = sample("wide", 3)
    (wide,), (same,) = (measure_split(split, [architecture]) for split in ("wide", "test"))
    assert wide.parameters == count_parameters(architecture.replace(width=128))
    assert same.parameters == count_parameters(architecture)


def test_summaries():
    summaries = summarize([measured(2), measured(3), measured(7)])
    assert summaries["nodes"] == Summary(4.0, pytest.approx((14 / 3) ** 0.5), 2, 3.0, 7)
    assert summaries["parameters"].largest == 70
    assert list(summaries) == ["nodes", "parameters", "depth", "cells"]


def test_shares_of_operations():
    shares = operation_shares([measured(2, cse=3, msa=1), measured(3, cse=4)])
    assert list(shares) == list(OPERATIONS)
    assert (shares["cse"], shares["msa"], shares["none"]) == (7 / 8, 1 / 8, 0)
