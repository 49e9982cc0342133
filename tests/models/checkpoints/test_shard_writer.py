import json
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ghn_pyg import __version__
from ghn_pyg.models.checkpoints import SavedTensors, ShardIndex
from ghn_pyg.models.checkpoints.shard_reader import INDEX_FILE
from ghn_pyg.models.checkpoints.shard_writer import ShardWriter, check_disk, existing_shards, replace_shards
from ghn_pyg.utils.atomic_files import unfinished_folder
from tests.killed import killed_at

SIZES = {"a": (3, 5), "b": (7,), "c": (0, 2), "d": (2, 3, 5), "e": ()}
TENSORS = {name: torch.randn(shape, generator=torch.Generator().manual_seed(3)) for name, shape in SIZES.items()}


def write(folder, shard_size, tensors=TENSORS, **metadata):
    """Writes tensors into a folder, as a prediction does."""
    with unfinished_folder(folder, "shards") as unfinished:
        existing_shards(folder)
        writer = ShardWriter(unfinished, shard_size)
        for name, tensor in tensors.items():
            writer.empty(name, tensor.shape, tensor.dtype).copy_(tensor)
        return replace_shards(*writer.finish(metadata), folder)


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
    index = write(tmp_path, shard_size, ghn="of mine")
    files = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    assert sorted(os.listdir(tmp_path)) == [*files, INDEX_FILE]
    assert index.weight_map == {name: file for file, names in zip(files, shards, strict=True) for name in names}
    assert index.metadata == {"ghn": "of mine", "total_size": 4 * 53, "ghn_pyg": __version__}
    assert ShardIndex.read(tmp_path) == index
    for file, names in zip(files, shards, strict=True):
        with safe_open(tmp_path / file, "pt") as opened:
            assert sorted(opened.keys()) == names
            assert opened.metadata() == {"format": "pt"}
    tensors = read(tmp_path)
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())


def test_no_tensors(tmp_path):
    assert write(tmp_path, 5, {}).metadata["total_size"] == 0
    assert read(tmp_path) == {}


def test_earlier_shards_are_replaced_and_other_files_stay(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    write(tmp_path, 1)
    write(tmp_path, 88, {"f": torch.ones(23)})
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model-00001-of-00001.safetensors", INDEX_FILE]
    assert read(tmp_path)["f"].tolist() == [1] * 23


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the writer is another process")
@pytest.mark.parametrize(
    ("first", "shard_size", "stride"),
    [
        (False, 100, 7),  # shards replace others of their names
        *(
            pytest.param(first, shard_size, 1, marks=pytest.mark.exhaustive)
            for first in (True, False)
            for shard_size in (1, 88, 100)
        ),
    ],
)
def test_a_killed_writer_leaves_one_whole_prediction(first, shard_size, stride, tmp_path):
    other, found = {name: tensor + 1 for name, tensor in TENSORS.items()}, []
    for step in range(0, 1000, stride):
        folder = tmp_path / f"{step}"
        folder.mkdir()
        if not first:
            write(folder, 100)
        if not killed_at(step, lambda folder=folder: write(folder, shard_size, other)):
            break
        if first and not (folder / INDEX_FILE).exists():
            found.append("none")
        else:
            tensors = read(folder)
            assert tensors.keys() == TENSORS.keys()
            states = {"new": other, "old": TENSORS}
            found += [state for state in states if all(tensors[n].equal(t) for n, t in states[state].items())]
        assert len(found) == step // stride + 1
        write(folder, 10_000)
        assert sorted(os.listdir(folder)) == ["model-00001-of-00001.safetensors", INDEX_FILE]
    before = "none" if first else "old"
    assert found.count(before) > 10 // stride
    assert found.count("new") > 10 // stride
    assert found == sorted(found, key=["none", "old", "new"].index)


def test_a_file_system_without_links(tmp_path, monkeypatch):
    def link(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", link)
    for _ in range(2):
        index = write(tmp_path, 88)
        assert ShardIndex.read(tmp_path) == index
        assert sorted(os.listdir(tmp_path)) == sorted({*index.weight_map.values(), INDEX_FILE})
        assert all(torch.equal(tensor, TENSORS[name]) for name, tensor in read(tmp_path).items())
    monkeypatch.undo()
    write(tmp_path, 10_000)
    assert sorted(os.listdir(tmp_path)) == ["model-00001-of-00001.safetensors", INDEX_FILE]


def test_only_one_process_writes_into_a_folder(tmp_path):
    with (
        unfinished_folder(tmp_path, "shards") as unfinished,
        pytest.raises(BlockingIOError, match="another process writes here; wait for it"),
    ):
        write(tmp_path, 88)
    assert not unfinished.exists()
    write(tmp_path, 88)


def test_names_in_an_index_remove_no_other_files(tmp_path):
    (tmp_path / "mine.txt").touch()
    metadata = {"ghn_pyg": __version__, "replaced": ["mine.txt", "../mine.txt"]}
    (tmp_path / INDEX_FILE).write_text(json.dumps({"metadata": metadata, "weight_map": {"a": "mine.txt"}}))
    write(tmp_path, 10_000)
    assert sorted(os.listdir(tmp_path)) == ["mine.txt", "model-00001-of-00001.safetensors", INDEX_FILE]


@pytest.mark.parametrize(
    "name", ["model.safetensors", "model-00002-of-00002.safetensors", INDEX_FILE, "model-00001-of-00001.safetensors"]
)
@pytest.mark.parametrize("damaged", [True, False])
def test_other_weights_are_not_replaced(tmp_path, name, damaged):
    if damaged:
        (tmp_path / name).write_bytes(b"{")
    elif name == INDEX_FILE:
        (tmp_path / name).write_text(json.dumps({"metadata": {"total_size": 5}, "weight_map": {}}))
    else:
        save_file({"x": torch.ones(3)}, tmp_path / name)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(FileExistsError, match=f"{name} is not of an earlier prediction; choose another folder"):
        write(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == before


def test_a_disk_without_enough_space(tmp_path):
    check_disk(tmp_path, 23)
    with pytest.raises(OSError, match=r"the shards need 1,000,000,000.00 GB, and [\d.,]+ GB are free on the disk"):
        check_disk(tmp_path, 10**18)
