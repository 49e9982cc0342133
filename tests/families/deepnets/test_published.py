import dataclasses
import os
import pickle

import h5py
import numpy as np
import pytest
import torch
from ghn_pyg.families.deepnets.published import PublishedDeepNets
from ghn_pyg.families.deepnets.published_files import PublishedFiles
from ghn_pyg.families.deepnets.published_writer import export
from torch_geometric.loader import DataLoader

from ghn_pyg import Prediction
from ghn_pyg.families.deepnets import published
from ghn_pyg.families.deepnets.architecture import Architecture
from ghn_pyg.families.deepnets.dataset import sized_graph
from ghn_pyg.families.deepnets.network import Network
from ghn_pyg.families.deepnets.published_graph import direct_edges
from tests.families.deepnets.published_files_for_tests import (
    ALL,
    ATTENTION,
    EXPECTED,
    NONE,
    SEPARABLE,
    TRAIN,
    edited_meta,
    replace_array,
    seeded_t10,
    small_file,
)
from tests.golden import fingerprint, labelled

EACH = pytest.mark.parametrize("place", range(8))


def golden_graph(place):
    return PublishedDeepNets(TRAIN).graph(place, Architecture.from_args(EXPECTED[place]["args"]))


# --- the golden file -------------------------------------------------------------------------------------------------


@EACH
def test_types_edges_and_distances(place):
    golden, graph = EXPECTED[place], golden_graph(place)
    assert graph.node_types == golden["types"]
    assert graph.edge_index.t().tolist() == golden["edges"]
    assert graph.distance.sum().item() == golden["distance_sum"]
    assert graph.distance.max().item() <= 50


@EACH
def test_parameters(place):
    """Each has the name and shape that it has in the network, and is decoded once or kept."""
    golden, graph = EXPECTED[place], golden_graph(place)
    specs = [spec for node in graph.params for spec in node]
    assert sorted(graph.kept) == sorted(golden["kept"])
    assert {spec.name for spec in specs} == set(golden["T10"])
    with torch.device("meta"):
        network = Network(graph.architecture)
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    assert len(specs) + len(graph.kept) == len(shapes)
    assert {spec.name: spec.shape for spec in specs} | {name: shapes[name] for name in graph.kept} == shapes


@EACH
def test_predicted_parameters(place):
    prediction = seeded_t10().predict(golden_graph(place))
    assert isinstance(prediction, Prediction)
    for name, (norm, *figures) in EXPECTED[place]["T10"].items():
        flat = prediction[name].double().flatten()
        came = [flat.norm(), flat.sum(), flat[0], flat[flat.numel() // 2], flat[-1]]
        root = flat.numel() ** 0.5
        # A sum of n elements is as far off as n elements can be together.
        allowed = [1e-5 * norm, 1e-4 * norm * root, *[1e-4 * norm / root] * 3]
        off = (torch.stack(came) - torch.tensor([norm, *figures])).abs()
        assert (off <= torch.tensor(allowed)).all(), f"{name}: {came} instead of {[norm, *figures]}"


def test_the_golden_file_needs_repairs():
    with h5py.File(TRAIN) as file:
        counts = [direct_edges(file[f"train/{place}/adj"][()]).shape[1] for place in range(8)]
    assert counts == [171, 128, 382, 158, 100, 212, 200, 262]
    assert [len(golden["edges"]) for golden in EXPECTED] == [163, 121, 351, 156, 94, 189, 188, 227]


def test_a_graph_in_detail():
    graph = golden_graph(0)
    assert graph.architecture.width == 48
    assert graph.node_names[:7] == [
        "input", "stem0.weight", "pos_enc.weight", "cells.0:sum", "cells.0.preprocess1.op.1.weight",
        "cells.0.preprocess0.op.1.weight", "cells.0.preprocess1.op.2.weight",
    ]  # fmt: skip
    assert graph.param_names[6] == ["cells.0.preprocess1.op.2.weight", "cells.0.preprocess1.op.2.bias"]
    assert [(spec.shape, spec.role) for spec in graph.params[6]] == [((48,), "gain"), ((48,), "bias")]
    assert graph.node_shape[:7].tolist() == [
        [0, 0, 0, 0], [48, 3, 3, 3], [1, 48, 11, 11], [0, 0, 0, 0], [48, 48, 1, 1], [48, 48, 1, 1], [48, 1, 1, 1],
    ]  # fmt: skip
    assert graph.param_names[11] == ["cells.0._ops.1.attn.to_qkv.weight"]
    assert graph.node_names[-5:] == [
        "cells.8:glob_avg", "classifier.0.weight", "classifier.0.bias", "classifier.3.weight", "classifier.3.bias",
    ]  # fmt: skip
    assert graph.node_shape[-2:].tolist() == [[10, 128, 1, 1], [10, 1, 1, 1]]
    assert graph.classifier.nonzero().flatten().tolist() == [147, 148]
    pools = [node for node, kind in enumerate(graph.node_types) if kind == "max_pool"]
    assert graph.node_names[pools[0]] == "cells.2:max_pool"  # the cell before, as the file has it
    assert graph.node_shape[pools].unique(dim=0).tolist() == [[1, 1, 3, 3]]
    assert len(set(graph.node_names)) == graph.num_nodes


def test_sizes_of_the_networks():
    dataset = PublishedDeepNets(TRAIN)
    assert dataset[0].architecture.width == 32
    assert dataset[0].node_shape[147].tolist() == [10, 256, 1, 1]
    large = PublishedDeepNets(TRAIN, num_classes=7, image_size=224, width=64)
    assert large.num_classes == 7
    assert large[0].node_shape[[1, 2, 147, 148]].tolist() == [
        [64, 3, 16, 16], [1, 64, 14, 14], [7, 256, 1, 1], [7, 1, 1, 1],
    ]  # fmt: skip
    assert torch.equal(large[0].edge_index, dataset[0].edge_index)


def test_networks_of_the_wide_split_are_wider(tmp_path):
    """Unless the file says how wide they are."""
    path = small_file(tmp_path, dataclasses.replace(ATTENTION, width=32), ATTENTION, split="wide")
    shapes = [graph.node_shape[1].tolist() for graph in PublishedDeepNets(path, "wide")]
    assert shapes == [[128, 3, 3, 3], [16, 3, 3, 3]]
    large = PublishedDeepNets(path, "wide", image_size=224, width=24)
    assert [graph.node_shape[1].tolist() for graph in large] == [[48, 3, 16, 16]] * 2


# --- as a dataset ----------------------------------------------------------------------------------------------------


def test_positions_slices_and_batches():
    dataset = PublishedDeepNets(TRAIN)
    sizes = [149, 116, 335, 142, 91, 184, 172, 219]
    assert len(dataset) == 8
    assert [graph.num_nodes for graph in dataset] == sizes
    assert dataset[-1].num_nodes == dataset[np.int64(7)].num_nodes == 219
    assert [graph.num_nodes for graph in dataset[5:7]] == sizes[5:7]
    assert [graph.num_nodes for graph in dataset[[6, 1]]] == [172, 116]
    batch = next(iter(DataLoader(dataset, batch_size=3)))
    assert batch.num_nodes == sum(sizes[:3])
    assert batch.architecture == [dataset.architecture(place) for place in range(3)]
    assert seeded_t10().predict(batch)[1].keys() == EXPECTED[1]["T10"].keys()


def test_architectures_without_graphs():
    dataset = PublishedDeepNets(TRAIN)
    for place, golden in enumerate(EXPECTED):
        args = {**golden["args"], "C": 32, "fc_dim": 256}
        assert dataset.architecture(place) == Architecture.from_args(args)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
def test_workers_open_files_of_their_own():
    """Also when the process that they are forked from has read before, and from two datasets."""
    dataset, other = PublishedDeepNets(TRAIN), PublishedDeepNets(TRAIN, width=16)
    expected = [(graph.edge_index.tolist(), graph.params) for graph in dataset]
    loader = DataLoader(dataset, batch_size=1, num_workers=3, multiprocessing_context="fork")
    assert other[3].architecture.width == 16
    for _ in range(3):
        found = [(batch.edge_index.tolist(), batch.params[0]) for batch in loader]
        assert found == expected
        assert other[2].num_nodes == dataset[2].num_nodes == 335


def test_another_process_opens_files_again(monkeypatch):
    opened = []
    monkeypatch.setattr(published, "PublishedFiles", lambda path: opened.append(path) or PublishedFiles(path))
    dataset = PublishedDeepNets(TRAIN)
    assert dataset[4].num_nodes == dataset[4].num_nodes == 91
    assert opened == [TRAIN] * 2  # once to check them
    monkeypatch.setattr(os, "getpid", lambda: 0)
    assert dataset[4].num_nodes == dataset[4].num_nodes == 91
    assert opened == [TRAIN] * 3


def test_copies_closing_and_reopening(tmp_path):
    path = small_file(tmp_path)
    with PublishedDeepNets(path, "val") as dataset:
        expected = dataset[1].params
        copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301
    assert len(pickle.dumps(dataset)) < 20_000
    with h5py.File(path, "r+"):  # it is closed
        pass
    assert copy[1].params == dataset[1].params == expected
    part = dataset[1:]
    dataset.close()
    assert part[0].params == expected


# --- what other files may hold ---------------------------------------------------------------------------------------


def test_old_names(tmp_path):
    path = small_file(tmp_path)
    expected = [graph.params for graph in PublishedDeepNets(path, "val")]
    with edited_meta(path) as content:
        names = content["val"]["meta"]["unique_op_names"]
        changed = {
            key: name.replace("attn.", "").replace("to_out.0.weight", "to_out.0.") for key, name in names.items()
        }
        changed = {key: name.replace(".op.", ".") if "_ops" in name else name for key, name in changed.items()}
        assert {"_ops.0.to_qkv.weight", "_ops.0.to_out.0.", "_ops.1.1.weight"} <= set(changed.values())
        content["val"]["meta"]["unique_op_names"] = changed
    assert [graph.params for graph in PublishedDeepNets(path, "val")] == expected


def test_nodes_in_any_order(tmp_path):
    path = small_file(tmp_path)
    expected = [fingerprint(*labelled(graph)) for graph in PublishedDeepNets(path, "val")]
    for place in range(4):
        with h5py.File(path) as file:
            others = np.random.default_rng(place).permutation(len(file[f"val/{place}/nodes"]) - 1)
        order = np.concatenate(([0], others + 1))
        replace_array(path, f"val/{place}/nodes", lambda values, order=order: values[order])
        replace_array(path, f"val/{place}/adj", lambda values, order=order: values[order][:, order])
    for place, graph in enumerate(PublishedDeepNets(path, "val")):
        assert fingerprint(*labelled(graph)) == expected[place]
        assert (graph.edge_index[0] < graph.edge_index[1]).all()
        own = sized_graph(ALL[place], 10, 32)
        assert graph.distance.sum() == own.distance.sum()


def test_several_splits_in_one_file(tmp_path):
    path = tmp_path / "deepnets1m_eval.hdf5"
    export({"val": ALL[:1], "bnfree": ALL[1:], "deep": []}, path)
    assert [len(PublishedDeepNets(path, split)) for split in ("val", "bnfree", "deep")] == [1, 3, 0]
    assert PublishedDeepNets(path, "bnfree")[1].architecture == NONE


def test_graphs_of_parameters_that_are_no_nodes(tmp_path):
    """What the network uses and the graph has no node for is kept too."""
    path = small_file(tmp_path, SEPARABLE)
    before = PublishedDeepNets(path, "val")[0]
    last = before.num_nodes - 1
    replace_array(path, "val/0/nodes", lambda values: values[:last])
    replace_array(path, "val/0/adj", lambda values: values[:last, :last])
    graph = PublishedDeepNets(path, "val")[0]
    assert graph.kept == {"classifier.3.bias": "the published graph has no node for it"}
    assert graph.classifier.sum() == 1
