import json
import shutil
import sys

import h5py
import numpy as np
import pytest
from ghn_pyg.families.deepnets.published import PublishedDeepNets
from ghn_pyg.families.deepnets.published_files import DatasetError, meta_path

from tests.families.deepnets.published_files_for_tests import (
    ATTENTION,
    NONE,
    SEPARABLE,
    TRAIN,
    edited_meta,
    replace_array,
    small_file,
)


def change_name(content, old, new):
    names = content["val"]["meta"]["unique_op_names"]
    (key,) = [key for key, name in names.items() if name == old]
    names[key] = new


def test_missing_files(tmp_path):
    with pytest.raises(
        DatasetError, match=r"there is no file .*none\.hdf5; expected deepnets1m_train\.hdf5, .*release"
    ):
        PublishedDeepNets(tmp_path / "none.hdf5")
    shutil.copy(TRAIN, tmp_path)
    with pytest.raises(DatasetError, match=r"there is no file .*deepnets1m_train_meta\.json; expected "):
        PublishedDeepNets(tmp_path / TRAIN.name)


def test_files_of_another_kind_and_parts_of_files(tmp_path):
    path = small_file(tmp_path)
    content, text = path.read_bytes(), meta_path(path).read_text()
    for damaged in (b"", b"no HDF5 file", content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(DatasetError, match=r"small\.hdf5: it is no HDF5 file, or a part of one \(.*; expected"):
            PublishedDeepNets(path, "val")
    path.write_bytes(content)
    for damaged in ("", "[]", "no JSON", text[: len(text) // 2], text[:-1], text + "}", '{"val": 3}', '{"val": [3]}'):
        meta_path(path).write_text(damaged)
        with pytest.raises(
            DatasetError, match=r"small_meta\.json: it is damaged or no JSON file of DeepNets-1M \(.*line"
        ):
            PublishedDeepNets(path, "val")


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("vol", "has no split 'vol'; it has val; did you mean val"),
        ("train", "has no split 'train'; it has val$"),
        (None, "has no split None; it has val$"),
    ],
)
def test_splits_that_are_not_there(split, message, tmp_path):
    with pytest.raises(DatasetError, match=message):
        PublishedDeepNets(small_file(tmp_path), split)


def test_files_that_do_not_belong_together(tmp_path):
    path = small_file(tmp_path)
    with edited_meta(path) as content:
        content["val"]["nets"].pop()
    with pytest.raises(DatasetError, match=r"small_meta\.json describes 3 architectures of split 'val', but .* has 4"):
        PublishedDeepNets(path, "val")
    with edited_meta(path) as content:
        content["val"]["nets"] = [NONE.to_args()] * 4
    with pytest.raises(
        DatasetError, match=r"architecture 0 of split 'val' of .*'stem0\.weight', which its network does"
    ):
        PublishedDeepNets(path, "val")[0]
    with edited_meta(path) as content:
        del content["val"]["meta"]["primitives_ext"]
    with pytest.raises(DatasetError, match=r"split 'val' of .*small_meta\.json: it has no table 'primitives_ext'"):
        PublishedDeepNets(path, "val")


@pytest.mark.parametrize("index", [8, -9, 10**20])
def test_positions_that_are_not_there(index):
    dataset = PublishedDeepNets(TRAIN)
    with pytest.raises(
        IndexError, match=rf"split 'train' of .*train\.hdf5 has 8 architectures here, got position {index}"
    ):
        dataset[index]
    with pytest.raises(IndexError, match=f"has 8 architectures, got position {index}"):
        dataset.architecture(index)
    with pytest.raises(IndexError, match=f"has 8 architectures, got position {index}"):
        dataset.graph(index, NONE)


@pytest.mark.parametrize(
    ("array", "change", "message"),
    [
        (
            "nodes",
            lambda values: values[:-1],
            r"shape \(N, N\) and nodes of shape \(N, 3\), got \(\(38, 38\), \(37, 3\)",
        ),
        ("adj", lambda values: values[:-1], r"got \(\(37, 38\), \(38, 3\)\)"),
        ("adj", lambda values: values.ravel(), r"got \(\(1444,\), \(38, 3\)\)"),
        ("adj", lambda values: values.astype(float), "expected integers, got float64"),
        ("adj", lambda values: h5py.Empty("u1"), "got"),
        ("nodes", lambda values: None, "its graph is missing or damaged .*download the file again"),
        ("adj", lambda values: values.T | values, "its graph has a cycle, at or before node 0"),
        (
            "nodes",
            lambda values: values + np.uint16([50, 0, 0]),
            "node 0 is of an unknown type, with the id 59; types are ",
        ),
        ("nodes", lambda values: values + np.uint16([0, 0, 999]), "node 0 has a name with the unknown id 999"),
        (
            "nodes",
            lambda values: values + np.uint16([0, 9, 0]),
            r"parameter 'cells\.9\.preprocess0\.op\.1\.weight', which",
        ),
        ("nodes", lambda values: values[[0, 1, 1, *range(3, 38)]], r"two nodes have the name 'stem0\.weight'"),
    ],
)
def test_damaged_graphs(array, change, message, tmp_path):
    path = small_file(tmp_path, ATTENTION)
    replace_array(path, f"val/0/{array}", change)
    with pytest.raises(DatasetError, match=rf"cannot read architecture 0 of split 'val' of .*small\.hdf5: .*{message}"):
        PublishedDeepNets(path, "val")[0]


def test_graphs_that_are_missing(tmp_path):
    path = small_file(tmp_path)
    with h5py.File(path, "r+") as file:
        file.move("val/2", "val/7")
    dataset = PublishedDeepNets(path, "val")
    assert dataset[3].num_nodes == 10
    with pytest.raises(DatasetError, match=r"architecture 2 of split 'val' of .*: its graph is missing or damaged"):
        dataset[2]


def test_unknown_names_and_types(tmp_path):
    path = small_file(tmp_path, SEPARABLE)
    with edited_meta(path) as content:
        change_name(content, "_ops.0.op.1.weight", "_ops.0.op.4.weight")
    with pytest.raises(
        DatasetError, match=r"'cells\.0\._ops\.0\.op\.4\.weight', which its network does not have; near it"
    ):
        PublishedDeepNets(path, "val")[0]
    with edited_meta(path) as content:
        content["val"]["meta"]["primitives_ext"]["9"] = "telepathy"
    with pytest.raises(DatasetError, match="node 0 is of an unknown type, 'telepathy'; types are max_pool, "):
        PublishedDeepNets(path, "val")[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda args: args.pop("norm"), "the architecture's arguments lack norm"),
        (lambda args: args.update(n_cells="4"), "cells expected an integer, got '4'"),
        (lambda args: args["genotype"]["normal"].pop(), "normal expected two branches"),
    ],
)
def test_arguments_of_no_architecture(change, message, tmp_path):
    path = small_file(tmp_path)
    with edited_meta(path) as content:
        change(content["val"]["nets"][1])
    with pytest.raises(DatasetError, match=rf"architecture 1 of split 'val' of .*small_meta\.json: {message}"):
        PublishedDeepNets(path, "val")[1]


def test_files_that_change_behind_our_back(tmp_path):
    path = small_file(tmp_path)
    dataset = PublishedDeepNets(path, "val")
    content = json.loads(meta_path(path).read_text())
    meta_path(path).write_text(json.dumps({"another": 1, **content}))
    with pytest.raises(DatasetError, match=r"cannot read architecture 1 of split 'val' of .*small_meta\.json"):
        dataset[1]


def test_without_h5py(monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r'need the package h5py; install it with: pip install "ghn_pyg\[deepnets\]"'):
        PublishedDeepNets(TRAIN)
