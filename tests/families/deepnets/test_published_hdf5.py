import pickle
import shutil

import h5py
import numpy as np
import pytest
import torch
from torch_geometric.loader import DataLoader

from ghn_pyg import Prediction
from ghn_pyg.families.deepnets import (
    Architecture,
    DatasetError,
    Network,
    PublishedDeepNets,
    graph_with_architecture,
)
from ghn_pyg.families.deepnets.published_json import meta_path
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

EACH = pytest.mark.parametrize("index", range(8))


def golden_graph(index):
    return PublishedDeepNets(TRAIN).graph(index, Architecture.from_args(EXPECTED[index]["args"]))


@EACH
def test_types_edges_and_distances(index):
    golden, graph = EXPECTED[index], golden_graph(index)
    assert graph.node_types == golden["types"]
    assert graph.edge_index.t().tolist() == golden["edges"]
    assert graph.distance.sum().item() == golden["distance_sum"]
    assert graph.distance.max().item() <= 50


@EACH
def test_parameters(index):
    """Each has the name and shape that it has in the network, and is decoded once or kept."""
    golden, graph = EXPECTED[index], golden_graph(index)
    specs = [spec for node in graph.params for spec in node]
    assert sorted(graph.kept) == sorted(golden["kept"])
    assert {spec.name for spec in specs} == set(golden["T10"])
    with torch.device("meta"):
        network = Network(graph.architecture)
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    assert len(specs) + len(graph.kept) == len(shapes)
    assert {spec.name: spec.shape for spec in specs} | {name: shapes[name] for name in graph.kept} == shapes


@EACH
def test_predicted_parameters(index):
    prediction = seeded_t10().predict(golden_graph(index))
    assert isinstance(prediction, Prediction)
    for name, (norm, *figures) in EXPECTED[index]["T10"].items():
        flat = prediction[name].double().flatten()
        came = [flat.norm(), flat.sum(), flat[0], flat[flat.numel() // 2], flat[-1]]
        root = flat.numel() ** 0.5
        # A sum of n elements is as far off as n elements can be together.
        allowed = [1e-5 * norm, 1e-4 * norm * root, *[1e-4 * norm / root] * 3]
        off = (torch.stack(came) - torch.tensor([norm, *figures])).abs()
        assert (off <= torch.tensor(allowed)).all(), f"{name}: {came} instead of {[norm, *figures]}"


def test_a_literal_graph():
    graph = golden_graph(0)
    assert graph.architecture.width == 48
    assert graph.node_names[:7] == [
        "input", "stem0.weight", "pos_enc.weight", "cells.0:sum", "cells.0.preprocess1.op.1.weight",
        "cells.0.preprocess0.op.1.weight", "cells.0.preprocess1.op.2.weight",
    ]  # fmt: skip
    assert graph.param_names[6] == ["cells.0.preprocess1.op.2.weight", "cells.0.preprocess1.op.2.bias"]
    assert [(spec.shape, spec.role) for spec in graph.params[6]] == [((48,), "gain"), ((48,), "bias")]
    pools = [node for node, kind in enumerate(graph.node_types) if kind == "max_pool"]
    assert graph.node_names[pools[0]] == "cells.2:max_pool"  # the cell before, as the file has it
    assert graph.node_shape[pools].unique(dim=0).tolist() == [[1, 1, 3, 3]]
    assert len(set(graph.node_names)) == graph.num_nodes


def test_networks_of_the_wide_split_are_wider(tmp_path):
    """Unless the file says how wide they are."""
    path = small_file(tmp_path, ATTENTION.replace(width=32), ATTENTION, split="wide")
    shapes = [graph.node_shape[1].tolist() for graph in PublishedDeepNets(path, "wide")]
    assert shapes == [[128, 3, 3, 3], [16, 3, 3, 3]]
    large = PublishedDeepNets(path, "wide", image_size=224, width=24)
    assert [graph.node_shape[1].tolist() for graph in large] == [[48, 3, 16, 16]] * 2


# --- as a dataset ----------------------------------------------------------------------------------------------------


def test_indices_slices_and_batches():
    dataset = PublishedDeepNets(TRAIN)
    sizes = [149, 116, 335, 142, 91, 184, 172, 219]
    assert len(dataset) == 8
    assert [graph.num_nodes for graph in dataset] == sizes
    assert dataset[-1].num_nodes == dataset[np.int64(7)].num_nodes == 219
    assert [graph.num_nodes for graph in dataset[5:7]] == sizes[5:7]
    assert [graph.num_nodes for graph in dataset[[6, 1]]] == [172, 116]
    batch = next(iter(DataLoader(dataset, batch_size=3)))
    assert batch.num_nodes == sum(sizes[:3])
    assert batch.architecture == [dataset.architecture(index) for index in range(3)]
    assert seeded_t10().predict(batch)[1].keys() == EXPECTED[1]["T10"].keys()


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
def test_each_worker_opens_its_own_file():
    """Even after their parent has read from two datasets."""
    dataset, other = PublishedDeepNets(TRAIN), PublishedDeepNets(TRAIN, width=16)
    expected = [(graph.edge_index.tolist(), graph.params) for graph in dataset]
    loader = DataLoader(dataset, batch_size=1, num_workers=3, multiprocessing_context="fork")
    assert other[3].architecture.width == 16
    for _ in range(3):
        found = [(batch.edge_index.tolist(), batch.params[0]) for batch in loader]
        assert found == expected
        assert other[2].num_nodes == dataset[2].num_nodes == 335


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


def test_nodes_in_random_order(tmp_path):
    path = small_file(tmp_path)
    expected = [fingerprint(*labelled(graph)) for graph in PublishedDeepNets(path, "val")]
    for index in range(4):
        with h5py.File(path) as file:
            others = np.random.default_rng(index).permutation(len(file[f"val/{index}/nodes"]) - 1)
        order = np.concatenate(([0], others + 1))
        replace_array(path, f"val/{index}/nodes", lambda values, order=order: values[order])
        replace_array(path, f"val/{index}/adj", lambda values, order=order: values[order][:, order])
    for index, graph in enumerate(PublishedDeepNets(path, "val")):
        assert fingerprint(*labelled(graph)) == expected[index]
        assert (graph.edge_index[0] < graph.edge_index[1]).all()
        own = graph_with_architecture(ALL[index])
        assert graph.distance.sum() == own.distance.sum()


def test_parameters_without_nodes_are_kept(tmp_path):
    path = small_file(tmp_path, SEPARABLE)
    before = PublishedDeepNets(path, "val")[0]
    last = before.num_nodes - 1
    replace_array(path, "val/0/nodes", lambda values: values[:last])
    replace_array(path, "val/0/adj", lambda values: values[:last, :last])
    graph = PublishedDeepNets(path, "val")[0]
    assert graph.kept == {"classifier.3.bias": "the published graph has no node for it"}
    assert graph.classifier.sum() == 1


# --- damaged files ---------------------------------------------------------------------------------------------------


def test_missing_files(tmp_path):
    with pytest.raises(DatasetError, match=r"there is no file .*none\.hdf5; expected deepnets1m_train\.hdf5"):
        PublishedDeepNets(tmp_path / "none.hdf5")
    shutil.copy(TRAIN, tmp_path)
    with pytest.raises(DatasetError, match=r"there is no file .*deepnets1m_train_meta\.json"):
        PublishedDeepNets(tmp_path / TRAIN.name)


def test_other_and_truncated_files(tmp_path):
    path = small_file(tmp_path)
    content, text = path.read_bytes(), meta_path(path).read_text()
    for damaged in (b"", b"no HDF5 file", content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(DatasetError, match=r"cannot read .*small\.hdf5: .*; expected deepnets1m_train"):
            PublishedDeepNets(path, "val")
    path.write_bytes(content)
    for damaged in ("", "[]", "no JSON", text[: len(text) // 2], text[:-1], text + "}", '{"val": 3}', "[" * 100_000):
        meta_path(path).write_text(damaged)
        with pytest.raises(DatasetError, match=r"cannot read .*small_meta\.json: .*; expected deepnets1m_train"):
            PublishedDeepNets(path, "val")


def test_unknown_splits(tmp_path):
    with pytest.raises(DatasetError, match="has no split 'vol'; did you mean val"):
        PublishedDeepNets(small_file(tmp_path), "vol")
    with pytest.raises(DatasetError, match="has no split 'train'; expected one of val"):
        PublishedDeepNets(small_file(tmp_path), "train")


def test_files_that_do_not_match(tmp_path):
    path = small_file(tmp_path)
    with edited_meta(path) as content:
        content["val"]["nets"].pop()
    with pytest.raises(DatasetError, match=r"small_meta\.json describes 3 architectures of split 'val', but .* has 4"):
        PublishedDeepNets(path, "val")
    with edited_meta(path) as content:
        content["val"]["nets"] = [NONE.to_args()] * 4
    with pytest.raises(DatasetError, match=r"architecture 0 of split 'val' of .*'stem0\.weight'"):
        PublishedDeepNets(path, "val")[0]
    with edited_meta(path) as content:
        del content["val"]["meta"]["primitives_ext"]
    with pytest.raises(DatasetError, match=r"split 'val' of .*small_meta\.json: expected the tables"):
        PublishedDeepNets(path, "val")


def test_invalid_indices():
    dataset = PublishedDeepNets(TRAIN)
    for read in (dataset.architecture, lambda index: dataset.graph(index, NONE)):
        with pytest.raises(IndexError, match="has indices 0 to 7, got 8"):
            read(8)
    with pytest.raises(IndexError):
        dataset[-9]


@pytest.mark.parametrize(
    ("array", "change", "message"),
    [
        ("nodes", lambda values: values[:-1], r"\(N, N\) and \(N, 3\), got \(38, 38\) and \(37, 3\)"),
        ("adj", lambda values: values[:-1], r"got \(37, 38\) and \(38, 3\)"),
        ("adj", lambda values: values.ravel(), r"expected a matrix of integers, got shape \(1444,\)"),
        ("adj", lambda values: values.astype(float), "expected a matrix of integers.* of float64"),
        ("adj", lambda values: h5py.Empty("u1"), "expected a matrix of integers|NoneType"),
        ("nodes", lambda values: None, "nodes"),
        ("adj", lambda values: values.T | values, "its graph has a cycle"),
        ("nodes", lambda values: values + np.uint16([50, 0, 0]), "node 0 has the type id 59"),
        ("nodes", lambda values: values + np.uint16([0, 0, 999]), "node 0 has .* the name id 999"),
        ("nodes", lambda values: values + np.uint16([0, 9, 0]), r"'cells\.9\.preprocess0\.op\.1\.weight'"),
        ("nodes", lambda values: values[[0, 1, 1, *range(3, 38)]], r"parameter 'stem0\.weight' twice"),
    ],
)
def test_damaged_graphs(array, change, message, tmp_path):
    path = small_file(tmp_path, ATTENTION)
    replace_array(path, f"val/0/{array}", change)
    with pytest.raises(DatasetError, match=rf"cannot read architecture 0 of split 'val' of .*small\.hdf5: .*{message}"):
        PublishedDeepNets(path, "val")[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda args: args.pop("norm"), "the arguments of an architecture lack norm"),
        (lambda args: args.update(n_cells="4"), "cells expected a valid integer, got '4'"),
        (lambda args: args["genotype"]["normal"].pop(), "normal expected two branches"),
    ],
)
def test_invalid_arguments_of_architectures(change, message, tmp_path):
    path = small_file(tmp_path)
    with edited_meta(path) as content:
        change(content["val"]["nets"][1])
    with pytest.raises(DatasetError, match=rf"architecture 1 of split 'val' of .*small_meta\.json: .*{message}"):
        PublishedDeepNets(path, "val")[1]
