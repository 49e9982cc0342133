import json
import os

import pytest
import torch
from ghn_pyg.models.checkpoints.sharded_files import (
    INDEX_FILE,
    SavedTensors,
    ShardIndex,
    ShardWriter,
    check_disk,
    earlier_files,
    exchange,
    shard_folder,
)
from safetensors import safe_open
from safetensors.torch import save_file

from ghn_pyg import __version__

SIZES = {"a": (3, 5), "b": (7,), "c": (0, 2), "d": (2, 3, 5), "e": ()}
TENSORS = {name: torch.randn(shape, generator=torch.Generator().manual_seed(3)) for name, shape in SIZES.items()}


def write(folder, shard_size, tensors=None, **metadata):
    """Writes tensors into a folder, as a prediction does."""
    tensors = TENSORS if tensors is None else tensors
    with shard_folder(folder) as unfinished:
        old = earlier_files(folder)
        writer = ShardWriter(unfinished, shard_size)
        for name, tensor in tensors.items():
            writer.empty(name, tensor.shape, tensor.dtype).copy_(tensor)
        index, new = writer.finish(metadata)
        exchange(old, new, folder)
    return index


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def read(folder):
    return {name: tensor.clone() for tensors in SavedTensors(folder) for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("shard_size", "shards"),
    [
        (10_000, [["a", "b", "c", "d", "e"]]),
        (88, [["a", "b", "c"], ["d"], ["e"]]),  # 60 + 28 bytes
        (87, [["a"], ["b", "c"], ["d"], ["e"]]),
        (1, [["a"], ["b"], ["c"], ["d"], ["e"]]),
    ],
)
def test_shards_and_index(tmp_path, shard_size, shards):
    folder = tmp_path / "new" / "folder"
    index = write(folder, shard_size, ghn="of mine")
    count = len(shards)
    names = [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]
    assert sorted(os.listdir(folder)) == [*names, INDEX_FILE]
    assert index.weight_map == {name: file for file, some in zip(names, shards, strict=True) for name in some}
    assert index.metadata == {"ghn": "of mine", "total_size": 4 * 53, "ghn_pyg": __version__}
    assert ShardIndex.read(folder) == index
    for file, some in zip(names, shards, strict=True):
        with safe_open(folder / file, "pt") as opened:
            assert sorted(opened.keys()) == some
            assert opened.metadata() == {"format": "pt", "ghn_pyg": __version__}
    found = read(folder)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())


def test_a_writer_holds_one_shard(tmp_path):
    writer = ShardWriter(tmp_path, 88)
    for name, tensor in TENSORS.items():
        writer.empty(name, tensor.shape, torch.float32).copy_(tensor)
        assert sum(held.numel() for held in writer._tensors.values()) <= 30
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["0.safetensors", "1.safetensors"]


def test_without_tensors(tmp_path):
    index = write(tmp_path, 5, {})
    assert index.metadata["total_size"] == 0
    assert read(tmp_path) == {}


def test_types(tmp_path):
    tensors = {"half": torch.ones(3, dtype=torch.bfloat16), "long": torch.ones(5, dtype=torch.int64)}
    assert write(tmp_path, 40, tensors).metadata["total_size"] == 46
    assert {name: tensor.dtype for name, tensor in read(tmp_path).items()} == {
        "half": torch.bfloat16,
        "long": torch.int64,
    }


# --- what was there before -------------------------------------------------------------------------------------------


def test_earlier_shards_are_replaced_and_other_files_stay(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    write(tmp_path, 1)
    write(tmp_path, 88, {"f": torch.ones(23)})
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model-00001-of-00001.safetensors", INDEX_FILE]
    assert read(tmp_path)["f"].tolist() == [1] * 23


def test_shards_without_their_index_are_replaced(tmp_path):
    """As a process leaves them that ends between two moves."""
    write(tmp_path, 1)
    (tmp_path / INDEX_FILE).unlink()
    write(tmp_path, 10_000)
    assert sorted(os.listdir(tmp_path)) == ["model-00001-of-00001.safetensors", INDEX_FILE]


@pytest.mark.parametrize(
    "name", ["model.safetensors", "model-00002-of-00002.safetensors", INDEX_FILE, "model-00001-of-00001.safetensors"]
)
@pytest.mark.parametrize("damaged", [True, False])
def test_weights_of_another_origin_are_not_replaced(tmp_path, name, damaged):
    if damaged:
        (tmp_path / name).write_bytes(b"{")
    elif name == INDEX_FILE:
        (tmp_path / name).write_text(json.dumps({"metadata": {"total_size": 5}, "weight_map": {}}))
    else:
        save_file({"x": torch.ones(3)}, tmp_path / name)
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match=rf"weights of another origin \({name}\), which are not replaced; choose"):
        write(tmp_path, 1)
    assert contents(tmp_path) == before


class Stop(BaseException):
    """As if somebody stopped the process."""


def stopped(folder, beside=None):
    """Stops after half a file, and after somebody else wrote another."""
    with shard_folder(folder) as unfinished:
        (unfinished / "0.safetensors").write_text("half of it")
        if beside is not None:
            beside.touch()
        raise Stop


def test_stopping_leaves_what_was_there(tmp_path):
    write(tmp_path, 1)
    before = contents(tmp_path)
    with pytest.raises(Stop):
        stopped(tmp_path)
    assert contents(tmp_path) == before


def test_stopping_leaves_no_new_folder(tmp_path):
    new = tmp_path / "new"
    with pytest.raises(Stop):
        stopped(new / "folder")
    assert not new.exists()
    with pytest.raises(Stop):
        stopped(new / "folder", new / "of somebody else")
    assert os.listdir(new) == ["of somebody else"]


@pytest.mark.parametrize("moves", range(9))
def test_moves_that_fail_are_undone(tmp_path, monkeypatch, moves):
    """Four old files go out of the way, then four new ones take their places, the index first and last."""
    write(tmp_path, 88)
    before = contents(tmp_path)
    replace, seen = os.replace, []

    def unfinished(path):
        return os.path.basename(os.path.dirname(path)).startswith(".unfinished")

    def stop(source, target):
        if unfinished(source) != unfinished(target):  # into the folder or out of it
            seen.append(os.path.basename(target))
            if len(seen) == moves + 1:
                raise Stop
        return replace(source, target)

    monkeypatch.setattr(os, "replace", stop)
    new = {name: tensor + 1 for name, tensor in TENSORS.items()}
    if moves == 8:
        write(tmp_path, 88, new)
        assert seen[0] == f"old-{INDEX_FILE}"
        assert seen[-1] == INDEX_FILE
        assert torch.equal(read(tmp_path)["a"], new["a"])
        return
    with pytest.raises(Stop):
        write(tmp_path, 88, new)
    assert contents(tmp_path) == before


def test_a_full_disk(tmp_path, monkeypatch):
    write(tmp_path, 1)
    before = contents(tmp_path)
    calls = []

    def fsync(_):
        calls.append(None)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=r"cannot write .*: No space left on device"):
        write(tmp_path, 1)
    assert contents(tmp_path) == before


def test_a_disk_without_room(tmp_path):
    check_disk(tmp_path, 23)
    with pytest.raises(OSError, match=r"the shards take 1,000,000,000.00 GB, and [\d.,]+ GB are free on the disk"):
        check_disk(tmp_path, 10**18)


# --- what is read ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', '{"weight_map": {}, "metadata": 5}']
)
def test_damaged_indices(tmp_path, text):
    (tmp_path / INDEX_FILE).write_text(text)
    with pytest.raises(ValueError, match=rf"{INDEX_FILE} is damaged \(.*; write it again"):
        ShardIndex.read(tmp_path)


@pytest.mark.parametrize("file", ["../model.safetensors", "/etc/passwd"])
def test_an_index_reads_its_own_folder_alone(tmp_path, file):
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": {"a": file}}))
    with pytest.raises(ValueError, match=rf"names '{file}', expected files of its own folder alone"):
        SavedTensors(tmp_path)


def test_an_index_that_names_what_a_shard_lacks(tmp_path):
    save_file({"a": torch.ones(3)}, tmp_path / "one.safetensors")
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": {"b": "one.safetensors"}}))
    with pytest.raises(ValueError, match=r"one.safetensors is damaged, or not of this index"):
        read(tmp_path)


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"expected a .safetensors file, or a folder with {INDEX_FILE}"):
        SavedTensors(tmp_path)
