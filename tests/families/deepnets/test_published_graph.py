import numpy as np
import pytest
import torch
from ghn_pyg.families.deepnets.layout import lay_out
from ghn_pyg.families.deepnets.published_files import DatasetError
from hypothesis import given
from hypothesis import strategies as st

from ghn_pyg import PRIMITIVES
from ghn_pyg.families.deepnets.published_graph import (
    Vocabulary,
    current_name,
    direct_edges,
    published_graph,
    repair,
    topological_order,
)
from ghn_pyg.transforms import shortest_paths
from tests.families.deepnets.published_files_for_tests import NORMLESS, SEPARABLE


def kinds_of(*names):
    return np.array([PRIMITIVES.index(name) for name in names])


def repaired(pairs, kinds, names=None):
    edges = np.array(sorted(pairs, key=lambda pair: pair[::-1])).T
    return list(map(tuple, repair(edges, kinds, names or [""] * len(kinds)).T.tolist()))


# --- ids and names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "current"),
    [
        ("_ops.3.to_qkv.weight", "_ops.3.attn.to_qkv.weight"),
        ("_ops.3.attn.to_qkv.weight", "_ops.3.attn.to_qkv.weight"),
        ("_ops.3.to_out.0.weight", "_ops.3.attn.to_out.0.weight"),
        ("_ops.3.to_out.0.bias", "_ops.3.attn.to_out.0.bias"),
        ("_ops.3.to_out.0.", "_ops.3.attn.to_out.0.weight"),
        ("_ops.3.attn.to_out.0.", "_ops.3.attn.to_out.0.weight"),
        ("_ops.3.to_out.0", "_ops.3.attn.to_out.0.weight"),
        ("_ops.3.2.weight", "_ops.3.op.2.weight"),
        ("_ops.13.11.weight", "_ops.13.op.11.weight"),
        ("_ops.3.op.2.weight", "_ops.3.op.2.weight"),
        ("_ops.3.conv_1.weight", "_ops.3.conv_1.weight"),
        ("_ops.3.ff.net.0.bias", "_ops.3.ff.net.0.bias"),
        ("preprocess0.op.1.weight", "preprocess0.op.1.weight"),
        ("stem0.3.weight", "stem0.3.weight"),
        ("classifier.0.bias", "classifier.0.bias"),
        ("pos_enc.weight", "pos_enc.weight"),
        ("sum", "sum"),
    ],
)
def test_old_names(name, current):
    assert current_name(name) == current
    assert current_name(current) == current


def test_a_vocabulary():
    vocabulary = Vocabulary(
        {
            "primitives_ext": {"0": "conv_1x1", "2": "sep_conv", "5": "sum", "7": "conv", "11": "pos_enc"},
            "unique_op_names": {"0": "classifier.3.weight", "3": "_ops.2.1.weight", "4": "sum", "6": "stem1.1.weight",
                                "8": "pos_enc.weight"},
        }
    )  # fmt: skip
    kinds, names = vocabulary.decode(np.array([[7, 5, 6], [11, 5, 8], [2, 13, 3], [5, 13, 4], [0, 17, 0]], np.uint16))
    assert [PRIMITIVES[kind] for kind in kinds] == ["conv", "pos_enc", "sep_conv", "sum", "conv"]
    assert names == ["stem1.1.weight", "pos_enc.weight", "cells.13._ops.2.op.1.weight", "cells.13.sum",
                     "classifier.3.weight"]  # fmt: skip


@pytest.mark.parametrize(
    "meta",
    [
        None,
        [],
        {},
        {"primitives_ext": {"0": "sum"}},
        {"primitives_ext": ["sum"], "unique_op_names": {}},
        {"primitives_ext": {"zero": "sum"}, "unique_op_names": {}},
        {"primitives_ext": {"-1": "sum"}, "unique_op_names": {}},
        {"primitives_ext": {"9" * 9: "sum"}, "unique_op_names": {}},
        {"primitives_ext": {"0": "sum"}, "unique_op_names": {"0": 3}},
    ],
)
def test_what_is_no_vocabulary(meta):
    with pytest.raises(DatasetError, match=r"it has no table '(primitives_ext|unique_op_names)' of ids and names"):
        Vocabulary(meta)


# --- wiring ----------------------------------------------------------------------------------------------------------


def test_direct_edges():
    distances = np.array([[0, 1, 2, 1], [0, 0, 1, 3], [0, 0, 0, 1], [0, 0, 0, 0]], np.uint8)
    assert direct_edges(distances).tolist() == [[0, 1, 0, 2], [1, 2, 3, 3]]
    assert direct_edges(np.zeros((1, 1), np.uint8)).shape == (2, 0)


@pytest.mark.parametrize(
    ("kind", "kept"),
    [(kind, 2 if kind in ("sum", "concat", "cse") else 1) for kind in PRIMITIVES],
)
def test_what_joins_nothing_keeps_its_first_predecessor(kind, kept):
    kinds = kinds_of("input", "conv", "conv", kind, "conv")
    expected = [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)]
    if kept == 1:
        expected.remove((2, 3))
    assert repaired([(0, 1), (0, 2), (2, 3), (1, 3), (3, 4)], kinds) == expected


STEM = ["input", "stem0.0.weight", "stem0.1.weight", "stem1.1.weight", "a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("stem0", "stem1", "moved"),
    [
        ((3, 4, 6), (5,), True),  # several, 4 and 6 are no neighbours, one
        ((3, 5), (4,), True),
        ((3, 5, 7), (6,), True),
        ((3, 4, 5), (6,), False),  # 4 and 5 are neighbours
        ((3, 4), (5,), False),
        ((3, 4, 6), (5, 7), False),  # stem1 has two
        ((3, 4, 6), (), False),  # and none
        ((6,), (5,), False),  # stem0 has one
    ],
)
def test_the_last_successor_of_the_first_stem(stem0, stem1, moved):
    kinds = kinds_of("input", "conv", "bn", *["conv"] * 5)
    pairs = [(0, 1), (1, 2), *((2, node) for node in stem0), *((3, node) for node in stem1)]
    found = repaired(pairs, kinds, STEM)
    expected = set(pairs)
    if moved:
        expected = expected - {(2, stem0[-1])} | {(3, stem0[-1])}
    assert found == sorted(expected)


def test_first_predecessors_come_before_the_stem():
    """5 loses its second predecessor, stem1, which has one successor then."""
    kinds = kinds_of("input", "conv", "bn", *["conv"] * 5)
    pairs = [(0, 1), (1, 2), (2, 3), (2, 5), (2, 7), (3, 5), (3, 4)]
    assert repaired(pairs, kinds, STEM) == [(0, 1), (1, 2), (2, 3), (2, 5), (3, 4), (3, 7)]


def test_a_successor_that_both_stems_have_is_one_edge():
    kinds = kinds_of("input", "conv", "bn", "conv", "conv", "conv", "sum", "conv")
    pairs = [(0, 1), (1, 2), (2, 3), (2, 6), (3, 6), (6, 7)]
    assert repaired(pairs, kinds, STEM) == [(0, 1), (1, 2), (2, 3), (3, 6), (6, 7)]


def test_one_stem_stays():
    names = ["input", "stem.0.weight", "stem.1.weight", "stemmed", "a", "b", "c", "d"]
    pairs = [(0, 1), (1, 2), (2, 3), (2, 4), (2, 6), (3, 5)]
    assert repaired(pairs, kinds_of("input", "conv", "bn", *["conv"] * 5), names) == pairs


@st.composite
def edge_lists(draw):
    """A number of nodes, and edges that all point forward in some order of them."""
    size = draw(st.integers(1, 13))
    order = draw(st.permutations(range(size)))
    node = st.integers(0, size - 1)
    pairs = draw(st.lists(st.tuples(node, node).filter(lambda pair: pair[0] < pair[1]), max_size=30 * (size > 1)))
    return size, np.array([(order[first], order[last]) for first, last in pairs], int).reshape(-1, 2).T


@given(edge_lists())
def test_topological_orders(drawn):
    size, edges = drawn
    found = topological_order(edges, size)
    assert sorted(found) == list(range(size))
    assert all(found.index(source) < found.index(target) for source, target in edges.T.tolist())
    place = np.argsort(found)
    assert topological_order(place[edges], size) == list(range(size))


@pytest.mark.parametrize(("edges", "node"), [([[0, 1, 2, 3], [1, 2, 3, 1]], 1), ([[0, 2], [1, 2]], 2)])
def test_cycles(edges, node):
    with pytest.raises(DatasetError, match=f"its graph has a cycle, at or before node {node}"):
        topological_order(np.array(edges), 4)


# --- graphs ----------------------------------------------------------------------------------------------------------


def test_distances_over_fifty():
    """A chain of 60 pools, from which the network's parameters are missing."""
    chain = np.stack([np.arange(60), np.arange(1, 61)])
    kinds = kinds_of("input", *["max_pool"] * 60)
    graph = published_graph(lay_out(NORMLESS), chain, kinds, np.zeros(61, int), ["input", *["max_pool"] * 60])
    assert graph.distance.dtype == torch.uint8
    assert graph.distances()[0].tolist() == [*range(51), *[0] * 10]
    assert torch.equal(graph.distance, shortest_paths(torch.from_numpy(chain), 61).flatten())
    assert graph.node_names[:3] == ["input", "cells.0:max_pool", "cells.0:max_pool#2"]
    assert graph.node_shape[:2].tolist() == [[0, 0, 0, 0], [1, 1, 3, 3]]
    assert list(graph.kept) == [
        "stem0.0.weight", "stem0.3.weight", "stem1.1.weight", "cells.0._ops.0.op.1.weight",
        "cells.0._ops.1.op.1.weight", "classifier.0.weight", "classifier.0.bias",
    ]  # fmt: skip
    assert set(graph.kept.values()) == {"the published graph has no node for it"}


def test_nodes_move_together_with_all_that_belongs_to_them():
    layout = lay_out(SEPARABLE, num_classes=7)
    names = ["input", "classifier.3.weight", "cells.3._ops.1.fc1.bias", "stem1.2.weight", "cells.3.sum"]
    kinds, cells = kinds_of("input", "conv", "bias", "bn", "sum"), np.array([0, 3, 3, 0, 3])
    graph = published_graph(layout, np.array([[0, 3, 2, 4, 3], [3, 2, 4, 1, 4]]), kinds, cells, names)
    assert graph.node_names == [
        "input",
        "stem1.2.weight",
        "cells.3._ops.1.fc1.bias",
        "cells.3:sum",
        "classifier.3.weight",
    ]
    assert graph.node_types == ["input", "bn", "bias", "sum", "conv"]
    assert graph.node_shape.tolist() == [[0] * 4, [16, 1, 1, 1], [8, 1, 1, 1], [0] * 4, [7, 11, 1, 1]]
    assert graph.param_names[1] == ["stem1.2.weight", "stem1.2.bias"]
    assert graph.classifier.tolist() == [False, False, False, False, True]
    assert sorted(graph.edge_index.t().tolist()) == [[0, 1], [1, 2], [1, 3], [2, 3], [3, 4]]
