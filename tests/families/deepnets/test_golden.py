"""Architectures and graphs of the published generator."""

import json
from collections import Counter

import h5py
import pytest
import torch

from ghn_pyg import PRIMITIVES
from ghn_pyg.families.deepnets import Architecture, architecture_graph, count_parameters
from ghn_pyg.families.deepnets.published_json import meta_path
from tests.families.deepnets.published_files_for_tests import EXPECTED, TRAIN
from tests.golden import fingerprint

EACH = pytest.mark.parametrize("position", range(8))


META = json.loads(meta_path(TRAIN).read_text())["train"]


def architecture(position):
    return Architecture.from_args(EXPECTED[position]["args"])


def published_nodes(position):
    """(type, cell and name) of each node, types without parameters without name."""
    meta = META["meta"]
    with h5py.File(TRAIN) as file:
        rows = file[f"train/{position}/nodes"][:].tolist()
    nodes = []
    for kind, cell, name in rows:
        label = meta["unique_op_names"][str(name)].replace(".to_", ".attn.to_")
        kind = meta["primitives_ext"][str(kind)].replace("conv_1x1", "conv")
        whole = label.startswith(("stem", "pos_enc", "classifier"))
        nodes.append((kind, None if label == kind else label if whole else f"cells.{cell}.{label}"))
    return nodes


def published_edges(position):
    """Pairs at distance 1 as the file has them, before repairs."""
    with h5py.File(TRAIN) as file:
        return (torch.from_numpy(file[f"train/{position}/adj"][:]) == 1).nonzero().tolist()


def nodes_of(graph):
    return [
        (PRIMITIVES[kind], names[0] if names else None)
        for kind, names in zip(graph.node_type.tolist(), graph.param_names, strict=True)
    ]


def without_attention(graph):
    """Edges with each node of type msa removed, which the published graphs lack."""
    edges = graph.edge_index.t().tolist()
    msa = {node for node, (kind, _) in enumerate(nodes_of(graph)) if kind == "msa"}
    entering = {target: source for source, target in edges if target in msa}
    return [(entering.get(source, source), target) for source, target in edges if target not in msa]


@EACH
def test_numbers_of_parameters(position):
    net = META["nets"][position]
    stored = Architecture.from_args(net)
    counts = {"cifar10": count_parameters(stored), "imagenet": count_parameters(stored, image_size=224)}
    assert counts == net["num_params"]


@EACH
def test_nodes(position):
    expected = Counter(published_nodes(position))
    expected["msa", None] = sum(str(name).endswith("to_qkv.weight") for _, name in expected)
    assert Counter(nodes_of(architecture_graph(architecture(position)))) == +expected


@EACH
def test_edges(position):
    """The published files list edges in another order of the nodes than their types and names.

    So a batch norm may seem to join two branches and a sum to have one input, which repairs do not undo. Without its
    labels the wiring is ours.
    """
    graph, edges = architecture_graph(architecture(position)), published_edges(position)
    ours = without_attention(graph)
    assert len(ours) == len(edges)
    blank = [()] * graph.num_nodes
    assert unlabelled(blank, ours) == unlabelled(blank, edges)


def unlabelled(nodes, edges):
    """A fingerprint of the nodes that have edges."""
    places = {place: number for number, place in enumerate(sorted({place for edge in edges for place in edge}))}
    return fingerprint(nodes[: len(places)], [(places[source], places[target]) for source, target in edges])
