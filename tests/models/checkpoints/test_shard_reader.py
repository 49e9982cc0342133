import json
import os
import sys
import time

import pytest
import torch
from safetensors.torch import save_file

from ghn_pyg.models.checkpoints import SavedTensors, ShardIndex
from ghn_pyg.models.checkpoints.shard_reader import INDEX_FILE


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', '{"weight_map": {}, "metadata": 5}',
        "[" * 100_000, '{"weight_map": {}, "metadata": {"a": NaN}}', '{"weight_map": {"a": "b", "a": "c"}}',
        "\ufeff{}", b"\xff",
    ],
)  # fmt: skip
def test_damaged_indices(tmp_path, text):
    (tmp_path / INDEX_FILE).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=rf"{INDEX_FILE} is damaged \(.*; write it again"):
        ShardIndex.read(tmp_path)


def test_names_of_an_index_are_shown_shortened_and_escaped(tmp_path):
    for file in ("\x1b[2J/a", f"{'n' * 100_000}/a"):
        (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": {"a": file}}))
        with pytest.raises(ValueError, match="expected files of its own folder only") as error:
            SavedTensors(tmp_path)
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 1000


def test_an_index_of_many_files(tmp_path):
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": {f"{n}": f"{n}.safetensors" for n in range(30_000)}}))
    start = time.process_time()
    assert len(SavedTensors(tmp_path).names_by_file) == 30_000
    assert time.process_time() - start < 5


@pytest.mark.parametrize("file", ["../model.safetensors", "/etc/passwd"])
def test_an_index_cannot_name_files_outside_of_its_folder(tmp_path, file):
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": {"a": file}}))
    with pytest.raises(ValueError, match=rf"names '{file}', expected files of its own folder only"):
        SavedTensors(tmp_path)


def test_an_index_that_names_a_tensor_that_the_shard_lacks(tmp_path):
    save_file({"a": torch.ones(3)}, tmp_path / "one.safetensors")
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": {"b": "one.safetensors"}}))
    with pytest.raises(ValueError, match=r"one.safetensors is damaged, or does not belong to its index"):
        list(SavedTensors(tmp_path))


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")
def test_a_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": {"a": "pipe.safetensors"}}))
    with pytest.raises(ValueError, match=r"pipe\.safetensors is empty, or a pipe or device"):
        list(SavedTensors(tmp_path))


def test_a_folder_without_an_index(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"expected a .safetensors file, or a folder with {INDEX_FILE}"):
        SavedTensors(tmp_path)
