import itertools

import pytest
import torch

from ghn_pyg import from_module
from ghn_pyg.families.deepnets import (
    DARTS,
    PDARTS,
    SPLIT_SIZES,
    VIT,
    Architecture,
    Genotype,
    Network,
    architecture_graph,
    sample,
)
from ghn_pyg.families.deepnets.network_plan import wire_cells

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
    """The graph equals the one traced from the network."""
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
@pytest.mark.parametrize("indices", [range(7), pytest.param(range(7, 30), marks=pytest.mark.exhaustive)], ids=str)
def test_sampled_architectures(split, indices):
    shift = 7 * list(SPLIT_SIZES).index(split)  # all splits together have all sizes
    for index in indices:
        image_size, width, hidden = SIZES[(index + shift) % len(SIZES)]
        architecture = sample(split, index)
        # The auxiliary classifier may follow a cell without output.
        auxiliary = index % 5 == 0 and wire_cells(architecture, [2 * architecture.cells // 3]) is not None
        sizes = {"num_classes": 7, "image_size": image_size, "width": width, "hidden": hidden}
        assert_traced(architecture, **sizes, auxiliary=auxiliary)


@pytest.mark.parametrize("sizes", [{}, {"image_size": 224}, {"auxiliary": True, "width": 16}])
@pytest.mark.parametrize(
    "architecture",
    [
        make(DARTS, 8),
        make(PDARTS, 7, norm=None, stem_type=1),
        make(VIT, 4, preprocess=False, classifier_layers=2),
        make(cells(HOLES, CONV * 3, concat=[2, 4]), 6),
        # The second block of the stem and every other cell are unused.
        make(cells(FIRST_ONLY), 5, stem_type=1),
        make(cells(FIRST_ONLY), 6, stem_type=1, preprocess=False, global_average=False),
        # Cells that return an input, so that the next one gets it twice.
        make(cells(SKIP, CONV), 5, preprocess=False, stem_pool=True),
        make(cells((("skip_connect", 0), ("skip_connect", 1)), CONV), 5, preprocess=False, stem_type=1),
        make(cells((("skip_connect", 0), ("none", 1)), (("msa", 0), ("cse", 1))), 6, preprocess=False),
        make(cells((("skip_connect", 1), ("none", 0)) * 2, CONV * 2, concat=[2, 3]), 4),
    ],
)
def test_special_architectures(architecture, sizes):
    assert_traced(architecture, **sizes)


def test_networks_that_cannot_be_built_have_no_graph():
    with pytest.raises(ValueError, match="8 heads, which must divide the channels, got 12"):
        architecture_graph(make(VIT, preprocess=False), width=12)
