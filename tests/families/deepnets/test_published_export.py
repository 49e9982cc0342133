import json
import sys

import h5py
import numpy as np
import pytest
import torch

from ghn_pyg.families.deepnets import Architecture, PublishedDeepNets, export, graph_with_architecture, sample
from ghn_pyg.families.deepnets.published_json import meta_path
from tests.families.deepnets.published_files_for_tests import (
    ALL,
    ATTENTION,
    NONE,
    NORMLESS,
    SEPARABLE,
    TRAIN,
    cells,
    file_size_limit,
    small_file,
)
from tests.golden import labelled


def assert_equal_graphs(graph, expected):
    for name in ("node_type", "node_shape", "classifier", "distance"):
        assert torch.equal(graph[name], expected[name]), name
    assert graph.params == expected.params
    assert graph.kept == expected.kept
    assert graph.architecture == expected.architecture
    nodes, edges = labelled(graph)
    assert (nodes, sorted(edges)) == (labelled(expected)[0], sorted(labelled(expected)[1]))


def test_sampled_graphs_come_back(tmp_path):
    splits = {split: [sample(split, index) for index in range(6)] for split in ("train", "bnfree", "dense")}
    splits["small"] = ALL
    path = tmp_path / "own.hdf5"
    export(splits, path)
    for split, architectures in splits.items():
        for graph, architecture in zip(PublishedDeepNets(path, split), architectures, strict=True):
            assert_equal_graphs(graph, graph_with_architecture(architecture))


def test_correct_wiring_is_not_repaired(tmp_path):
    """One cell alone after a stem of two outputs has the wiring that in a published file is a fault."""
    path = small_file(tmp_path, NORMLESS.replace(norm="bnorm"))
    right = sorted(PublishedDeepNets(path, "val")[0].edge_index.t().tolist())
    assert [edge for edge in right if 4 in edge or 6 in edge] == [[3, 4], [4, 5], [4, 7], [5, 6], [6, 9]]
    with h5py.File(path, "r+") as file:
        assert dict(file.attrs) == {"title": "DeepNets-1M", "without_wiring_faults": True}
        file.attrs.clear()
    wrong = PublishedDeepNets(path, "val")[0].edge_index.t().tolist()
    assert [edge for edge in wrong if 4 in edge or 6 in edge] == [[3, 4], [4, 5], [5, 6], [6, 7], [6, 9]]


def test_the_layout_is_that_of_published_files(tmp_path):
    golden = json.loads(meta_path(TRAIN).read_text())["train"]
    architectures = [Architecture.from_args(args) for args in golden["nets"]]
    path = tmp_path / "own.hdf5"
    export({"train": architectures}, path)
    content = json.loads(meta_path(path).read_text())
    assert list(content) == ["train"]
    assert list(content["train"]) == ["nets", "meta"]
    assert list(content["train"]["meta"]) == ["primitives_ext", "unique_op_names"]
    assert set(golden["meta"]["primitives_ext"].values()) == set(content["train"]["meta"]["primitives_ext"].values())
    for args, expected in zip(content["train"]["nets"], golden["nets"], strict=True):
        assert args.keys() == expected.keys()
        assert {**args, "num_nodes": 0} == {**expected, "num_nodes": 0}
    # Published graphs have no node for the softmax of attention.
    numbers = [args["num_nodes"] for args in content["train"]["nets"]]
    assert numbers == [156, 116, 346, 142, 91, 184, 181, 219]
    with h5py.File(path) as own, h5py.File(TRAIN) as published:
        assert own.attrs["title"] == published.attrs["title"]
        assert list(own["train"]) == list(published["train"]) == list("01234567")
        for name in ("1/adj", "1/nodes"):
            ours, theirs = own["train"][name], published["train"][name]
            assert (ours.dtype, ours.shape, ours.compression) == (theirs.dtype, theirs.shape, theirs.compression)


def test_the_content_of_a_file(tmp_path):
    path = small_file(tmp_path, SEPARABLE)
    meta = json.loads(meta_path(path).read_text())["val"]["meta"]
    with h5py.File(path) as file:
        distances, nodes = file["val/0/adj"][()], file["val/0/nodes"][()]
    types = [meta["primitives_ext"][str(kind)] for kind in nodes[:, 0]]
    names = [meta["unique_op_names"][str(name)] for name in nodes[:, 2]]
    assert list(zip(types, nodes[:, 1].tolist(), names, strict=True))[5:12] == [
        ("conv", 0, "stem1.1.weight"),
        ("bn", 0, "stem1.2.weight"),
        ("conv_1x1", 0, "preprocess0.conv_1.weight"),
        ("conv_1x1", 0, "preprocess0.conv_2.weight"),
        ("concat", 0, "concat"),
        ("bn", 0, "preprocess0.bn.weight"),
        ("conv_1x1", 0, "preprocess1.op.1.weight"),
    ]
    assert (types[-4:], names[-4]) == (["conv_1x1", "bias", "conv_1x1", "bias"], "classifier.0.weight")
    assert nodes[-5:, 1].tolist() == [3] * 5
    assert torch.equal(torch.from_numpy(distances).flatten(), graph_with_architecture(SEPARABLE).distance)


def test_long_distances(tmp_path):
    """They are written up to 254, and read up to 50."""
    deep = Architecture(
        genotype=cells([("sep_conv_3x3", 0), ("sep_conv_5x5", 1)], [("sep_conv_3x3", 0), ("sep_conv_5x5", 1)]),
        cells=60, width=8,
    )  # fmt: skip
    path = small_file(tmp_path, deep)
    with h5py.File(path) as file:
        distances = file["val/0/adj"][()]
    true = graph_with_architecture(deep, cutoff=1000).distance.view(len(distances), -1).numpy()
    assert true.max() > 255
    assert np.array_equal(distances, np.where(true <= 254, true, 0))
    assert_equal_graphs(PublishedDeepNets(path, "val")[0], graph_with_architecture(deep))


@pytest.fixture
def older(tmp_path):
    """An older file, which must survive any failure."""
    path = small_file(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    yield path
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("size", [0, 3000, 40_000])
def test_a_full_disk(size, older):
    with (
        pytest.raises(OSError, match=r"^cannot write .*small.*File too large$"),
        file_size_limit(size),
    ):
        export({"train": [NONE, ATTENTION] * 13}, older)


def test_a_disk_that_is_full_at_the_very_end(older, full_disk):
    with pytest.raises(OSError, match="No space left on device"):
        export({"train": [NONE]}, older)


@pytest.mark.parametrize("wrong", [None, "vit", NONE.to_args()])
def test_items_that_are_no_architectures(wrong, older):
    with pytest.raises(TypeError, match=r"split 'train' expected architectures, got .* at index 1"):
        export({"train": [NONE, wrong]}, older)


def test_architectures_without_a_network(older):
    none = ATTENTION.replace(genotype=cells([("none", 0), ("none", 1)], [("none", 0), ("msa", 1)]))
    with pytest.raises(ValueError, match="the output does not depend on the input"):
        export({"train": [NONE, none]}, older)


@pytest.mark.parametrize("split", ["", ".", "a/b", "a b", 3])
def test_invalid_names_of_splits(split, older):
    with pytest.raises(ValueError, match="a split's name expected letters, digits"):
        export({"train": [NONE], split: [NONE]}, older)


def test_without_h5py(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r'install it with: pip install "ghn_pyg\[deepnets\]"'):
        export({"train": [NONE]}, tmp_path / "own.hdf5")
    assert list(tmp_path.iterdir()) == []
