import itertools

import pytest
import torch
from ghn_pyg.families.deepnets.graph import architecture_graph
from ghn_pyg.families.deepnets.layout import wire
from ghn_pyg.families.deepnets.sampling import SPLIT_SIZES, sample
from torch_geometric.data import Batch

from ghn_pyg import from_module
from ghn_pyg.families.deepnets.architecture import Architecture
from ghn_pyg.families.deepnets.genotype import DARTS, PDARTS, VIT, Genotype
from ghn_pyg.families.deepnets.network import Network
from ghn_pyg.transforms import shortest_paths
from tests.tracing.helpers import kinds, sources

TENSORS = ("node_type", "edge_index", "node_shape", "classifier", "distance")
CONV = (("conv_3x3", 0), ("max_pool_3x3", 1))
FIRST_ONLY = (("conv_3x3", 0), ("none", 1))
SKIP = (("skip_connect", 1), ("none", 0))
HOLES = (("none", 0), ("none", 1), ("conv_1x1", 1), ("cse", 2), ("conv_3x3", 0), ("cse", 3))


def cells(normal, reduce=None, concat=None):
    concat = concat or [len(normal) // 2 + 1]
    return Genotype(normal, concat, reduce or normal, concat)


def make(genotype, count=5, **fields):
    return Architecture(genotype=genotype, cells=count, **fields)


def assert_traced(architecture, **sizes):
    """The graph is the one that is found in the built network."""
    with torch.device("meta"):
        expected = from_module(Network(architecture, **sizes))
    graph = architecture_graph(architecture, **sizes)
    assert graph.node_names == expected.node_names
    for name in TENSORS:
        assert graph[name].dtype == expected[name].dtype
        assert torch.equal(graph[name], expected[name]), name
    assert graph.params == expected.params
    assert graph.kept_items == expected.kept_items
    assert graph.tied_items == expected.tied_items
    assert graph.num_nodes == expected.num_nodes
    assert sorted(graph.keys()) == sorted(expected.keys())


SIZES = tuple(itertools.product((32, 224, 16, 29), (None, 8, 48), (None, 64)))


@pytest.mark.parametrize("split", SPLIT_SIZES)
def test_sampled_architectures(split):
    for index in range(30):
        image_size, width, hidden = SIZES[index % len(SIZES)]
        architecture = sample(split, index)
        # A second classifier stands after a cell that may be cut off.
        auxiliary = index % 5 == 0 and wire(architecture, [2 * architecture.cells // 3]) is not None
        sizes = {"num_classes": 7, "image_size": image_size, "width": width, "hidden": hidden}
        assert_traced(architecture, **sizes, auxiliary=auxiliary)


@pytest.mark.parametrize("sizes", [{}, {"image_size": 224}, {"auxiliary": True, "width": 16}])
@pytest.mark.parametrize(
    "architecture",
    [
        make(DARTS, 20),
        make(PDARTS, 7, norm=None, stem_type=1),
        make(VIT, 12, preprocess=False, classifier_layers=2),
        make(cells(HOLES, CONV * 3, concat=[2, 4]), 6),
        # The second part of the stem, and every other cell, serve nobody.
        make(cells(FIRST_ONLY), 5, stem_type=1),
        make(cells(FIRST_ONLY), 6, stem_type=1, preprocess=False, global_average=False),
        # Cells that pass on an input, so that the next one gets it twice.
        make(cells(SKIP, CONV), 5, preprocess=False, stem_pool=True),
        make(cells((("skip_connect", 0), ("skip_connect", 1)), CONV), 5, preprocess=False, stem_type=1),
        make(cells((("skip_connect", 0), ("none", 1)), (("msa", 0), ("cse", 1))), 6, preprocess=False),
        make(cells((("skip_connect", 1), ("none", 0)) * 2, CONV * 2, concat=[2, 3]), 4),
    ],
)
def test_special_architectures(architecture, sizes):
    assert_traced(architecture, **sizes)


@pytest.mark.parametrize("cutoff", [1, 7, 300])
def test_cutoffs(cutoff):
    graph = architecture_graph(make(DARTS), cutoff=cutoff)
    expected = shortest_paths(graph.edge_index, graph.num_nodes, cutoff)
    assert torch.equal(graph.distance, expected.flatten())


def test_a_literal_graph():
    branches = (("none", 0), ("none", 1), ("msa", 1), ("cse", 0))
    architecture = make(Genotype(branches, [2, 3], branches, [2, 3]), 1, norm=None)
    graph = architecture_graph(architecture, num_classes=5, width=8)
    assert sources(graph) == {
        "input": [],
        "stem0.weight": ["input"],
        "pos_enc.weight": [],
        "pos_enc:sum": ["stem0.weight", "pos_enc.weight"],
        "cells.0.preprocess0.op.1.weight": ["pos_enc:sum"],
        "cells.0.preprocess1.op.1.weight": ["pos_enc:sum"],
        "cells.0._ops.2.ln1.weight": ["cells.0.preprocess1.op.1.weight"],
        "cells.0._ops.2.attn.to_qkv.weight": ["cells.0._ops.2.ln1.weight"],
        "cells.0._ops.2.attn:msa": ["cells.0._ops.2.attn.to_qkv.weight"],
        "cells.0._ops.2.attn.to_out.0.weight": ["cells.0._ops.2.attn:msa"],
        "cells.0._ops.2.attn.to_out.0.bias": ["cells.0._ops.2.attn.to_out.0.weight"],
        "cells.0._ops.2:sum": ["cells.0.preprocess1.op.1.weight", "cells.0._ops.2.attn.to_out.0.bias"],
        "cells.0._ops.2.ln2.weight": ["cells.0._ops.2:sum"],
        "cells.0._ops.2.ff.net.0.weight": ["cells.0._ops.2.ln2.weight"],
        "cells.0._ops.2.ff.net.0.bias": ["cells.0._ops.2.ff.net.0.weight"],
        "cells.0._ops.2.ff.net.3.weight": ["cells.0._ops.2.ff.net.0.bias"],
        "cells.0._ops.2.ff.net.3.bias": ["cells.0._ops.2.ff.net.3.weight"],
        "cells.0._ops.2:sum#2": ["cells.0._ops.2:sum", "cells.0._ops.2.ff.net.3.bias"],
        "cells.0._ops.3.fc1.weight": ["cells.0.preprocess0.op.1.weight"],
        "cells.0._ops.3.fc1.bias": ["cells.0._ops.3.fc1.weight"],
        "cells.0._ops.3.fc2.weight": ["cells.0._ops.3.fc1.bias"],
        "cells.0._ops.3.fc2.bias": ["cells.0._ops.3.fc2.weight"],
        "cells.0._ops.3:cse": ["cells.0.preprocess0.op.1.weight", "cells.0._ops.3.fc2.bias"],
        "cells.0:sum": ["cells.0._ops.2:sum#2", "cells.0._ops.3:cse"],
        "global_pooling:glob_avg": ["cells.0:sum"],
        "classifier.0.weight": ["global_pooling:glob_avg"],
        "classifier.0.bias": ["classifier.0.weight"],
    }
    assert kinds(graph)[:5] == ["input", "conv", "pos_enc", "sum", "conv"]
    assert graph.node_shape[[1, 2, 3, -2, -1]].tolist() == [
        [8, 3, 3, 3], [1, 8, 11, 11], [0, 0, 0, 0], [5, 16, 1, 1], [5, 1, 1, 1],
    ]  # fmt: skip
    assert graph.classifier.nonzero().flatten().tolist() == [25, 26]
    assert graph.kept == graph.tied == {}


def test_unused_parameters_are_kept():
    graph = architecture_graph(make(cells(FIRST_ONLY), 5, stem_type=1), width=8)
    assert [name for name in graph.kept if not name.startswith("cells")] == [
        "stem1.1.weight", "stem1.2.weight", "stem1.2.bias",
    ]  # fmt: skip
    assert {name.split(".")[1] for name in graph.kept if "_ops" in name} == {"1", "3"}
    assert set(graph.kept.values()) == {"the forward pass does not use it"}


def test_width_and_head_size_change_shapes_alone():
    narrow, wide = (architecture_graph(sample("train", 3), width=width, hidden=width) for width in (32, 96))
    assert narrow.node_names == wide.node_names
    assert torch.equal(narrow.distance, wide.distance)
    assert not torch.equal(narrow.node_shape, wide.node_shape)


def test_graphs_batch():
    graphs = [architecture_graph(sample("train", index)) for index in (3, 5)]
    batch = Batch.from_data_list(graphs)
    assert batch.graph_sizes == [graph.num_nodes for graph in graphs]
    assert [*batch[1].params] == graphs[1].params


def test_networks_that_cannot_be_built_have_no_graph():
    with pytest.raises(ValueError, match="8 heads, which must divide the channels, got 12"):
        architecture_graph(make(VIT, preprocess=False), width=12)
    with pytest.raises(ValueError, match="cutoff must be between 1 and 32766, got 0"):
        architecture_graph(make(DARTS), cutoff=0)
