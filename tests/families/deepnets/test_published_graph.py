import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghn_pyg import PRIMITIVES
from ghn_pyg.families.deepnets import DatasetError
from ghn_pyg.families.deepnets.published_graph import (
    Vocabulary,
    current_name,
    repair_wiring,
    topological_order,
)


def kinds_of(*names):
    return np.array([PRIMITIVES.index(name) for name in names])


def repaired(pairs, kinds, names=None):
    edges = np.array(sorted(pairs, key=lambda pair: pair[::-1])).T
    return list(map(tuple, repair_wiring(edges, kinds, names or [""] * len(kinds)).T.tolist()))


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


@pytest.mark.parametrize(
    "meta",
    [
        None,
        [],
        {},
        {"primitives_ext": {"0": "sum"}},
        {"primitives_ext": ["sum"], "unique_op_names": {}},
        {"primitives_ext": {"zero": "sum"}, "unique_op_names": {}},
        {"primitives_ext": {"0": "sum"}, "unique_op_names": {"0": 3}},
    ],
)
def test_invalid_vocabularies(meta):
    with pytest.raises(DatasetError, match="expected the tables 'primitives_ext' and 'unique_op_names'"):
        Vocabulary(meta)


# --- wiring ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "kept"),
    [(kind, 2 if kind in ("sum", "concat", "cse") else 1) for kind in PRIMITIVES],
)
def test_nodes_that_are_no_joins_keep_their_first_predecessor(kind, kept):
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


@pytest.mark.parametrize("edges", [[[0, 1, 2, 3], [1, 2, 3, 1]], [[0, 2], [1, 2]]])
def test_cycles(edges):
    with pytest.raises(DatasetError, match="its graph has a cycle"):
        topological_order(np.array(edges), 4)


# --- graphs ----------------------------------------------------------------------------------------------------------
