import gzip
import json
import os
import sys
from collections import OrderedDict

import joblib
import pytest
import safetensors.torch
import torch

from ghn_pyg import CheckpointError
from ghn_pyg.models.checkpoints import read_checkpoint, write_folder
from ghn_pyg.models.checkpoints.published_keys import from_published
from tests.models.checkpoints.checkpoint_files import (
    TINY,
    TINY2,
    convolutions,
    hub_form,
    published_state,
    same,
    training_checkpoint,
)

STATE = published_state(TINY)
OURS = from_published(STATE)


def ordered(state):
    """As ``Module.state_dict`` returns it, with versions as an attribute."""
    result = OrderedDict(state)
    result._metadata = OrderedDict({"": {"version": 1}})
    return result


def save_joblib(state, path, **options):
    joblib.dump(ordered(hub_form(state)), path, **options)


def save_legacy(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def run_checkpoint(state):
    """The checkpoint of a meta-training run here, whose average is preferred."""
    last, average = ({name: t * factor for name, t in from_published(state).items()} for factor in (2, 1))
    return {"ghn": last, "average": {**average, "n_averaged": torch.tensor(3)}, "progress": {},
            "config": {"ghn": TINY.to_dict()}}  # fmt: skip


FORMATS = {
    "joblib": save_joblib,
    "joblib zlib": lambda state, path: save_joblib(state, path, compress=3),
    "joblib gzip": lambda state, path: save_joblib(state, path, compress=("gzip", 1)),
    "joblib protocol 3": lambda state, path: save_joblib(state, path, protocol=3),
    "torch": lambda state, path: torch.save(ordered(state), path),
    "torch legacy": save_legacy,
    "training": lambda state, path: torch.save(training_checkpoint(ordered(state), hid=12), path),
    "training legacy": lambda state, path: save_legacy(training_checkpoint(state), path),
    "run": lambda state, path: torch.save(run_checkpoint(state), path),
    "compiled": lambda state, path: torch.save({f"_orig_mod.{name}": t for name, t in state.items()}, path),
    "parameters": lambda state, path: joblib.dump({name: torch.nn.Parameter(t) for name, t in state.items()}, path),
    "safetensors": safetensors.torch.save_file,
    "our names": lambda state, path: torch.save(from_published(state), path),
    "our folder": lambda state, path: write_folder(path, TINY, from_published(state)),
}
PICKLES = {name: FORMATS[name] for name in ("joblib", "torch", "torch legacy")}

each_format = pytest.mark.parametrize("save", FORMATS.values(), ids=FORMATS)
each_pickle = pytest.mark.parametrize("save", PICKLES.values(), ids=PICKLES)


@each_format
def test_every_format_gives_the_same(save, tmp_path):
    save(STATE, tmp_path / "ghn.pt")
    config, state = read_checkpoint(tmp_path / "ghn.pt")
    assert config == TINY
    assert same(state, OURS)
    assert not any(tensor.requires_grad or type(tensor) is not torch.Tensor for tensor in state.values())
    assert same(read_checkpoint(str(tmp_path / "ghn.pt"))[1], OURS)


@pytest.mark.parametrize("encoder", ["ghn2", "ghn1", "mlp"])
def test_baselines_have_convolutions_and_crop_kernels_from_the_corner(encoder, tmp_path):
    config = TINY2.replace(encoder=encoder)
    state = published_state(config)
    joblib.dump(convolutions(state), tmp_path / "ghn2.pt")
    read, ours = read_checkpoint(tmp_path / "ghn2.pt")
    assert read == config
    assert read.kernel_crop == "corner"
    assert same(ours, from_published(state))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@each_pickle
def test_precision_is_kept(save, dtype, tmp_path):
    state = {name: tensor.to(dtype) for name, tensor in STATE.items()}
    save(state, tmp_path / "ghn.pt")
    assert same(read_checkpoint(tmp_path / "ghn.pt")[1], from_published(state))


@each_pickle
def test_views_and_transposed_tensors(save, tmp_path):
    state = dict(STATE)
    state["decoder.conv.0.weight"] = STATE["decoder.conv.0.weight"].t().contiguous().t()
    state["ln.weight"], state["ln.bias"] = torch.arange(24.0).view(12, 2).unbind(1)
    save(state, tmp_path / "ghn.pt")
    assert same(read_checkpoint(tmp_path / "ghn.pt")[1], from_published(state))


# --- files that are no checkpoint ------------------------------------------------------------------------------------


@each_format
def test_files_that_are_cut_off(save, tmp_path):
    save(STATE, tmp_path / "whole")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    if whole.is_dir():
        whole = whole / "model.safetensors"
    content = whole.read_bytes()
    points = {0, 1, 2, 9, 17, 40, 200, 1000, *range(5000, len(content), len(content) // 11)}
    for point in sorted(points | {len(content) - n for n in (1, 5, 9, 100)}):
        cut.write_bytes(content[:point])
        with pytest.raises(CheckpointError, match=r"cannot (load|read) .*cut: .*[Ee]xpected"):
            read_checkpoint(cut)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got an empty file"),
        (b"<!doctype html>", "got a file that starts with b'<!doctype html>'"),
        (b"version https://git-lfs.github.com/spec/v1", "got a file that starts with b'version https://'"),
        (b"\x80\x04N.", "expected a dictionary of tensors, got NoneType"),
        (b"\x80\x04}.", "no tensor 'node_embedding.weight'"),
        (b"PK\x03\x04", "BadZipFile"),
        (b"\x02" + b"\0" * 7 + b"{}", "no tensor 'node_embedding.weight'"),
        (b"\x07" + b"\0" * 7 + b"{broken", "SafetensorError"),
        (gzip.compress(b"\x80\x04N.", mtime=0), "expected a dictionary of tensors, got NoneType"),
    ],
)
def test_files_of_other_formats(content, message, tmp_path):
    (tmp_path / "ghn.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as error:
        read_checkpoint(tmp_path / "ghn.pt")
    assert str(tmp_path / "ghn.pt") in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"conv1.weight": torch.ones(2, 3, 1, 1), "bn1.bias": torch.ones(2)}, "another family of models"),
        ({"bn1.num_batches_tracked": torch.tensor(0), "conv1.weight": torch.ones(2, 3, 1, 1)}, "to no published GHN"),
        ({"state_dict": [1]}, "expected a dictionary of tensors as its 'state_dict', got list"),
        ({"ghn": {}, "progress": {}, "config": [1]}, "expected the checkpoint of a run"),
        (torch.ones(3), "expected a dictionary of tensors, got Tensor"),
        ({"ln.weight": 3}, "expected tensors by name, got int at 'ln.weight'"),
        ({5: torch.ones(2)}, "expected tensors by name, got a name of type int"),
        ({"ln.weight": torch.arange(3)}, "expected weights, got a tensor of torch.int64"),
        ({"ln.weight": torch.ones(3, dtype=torch.complex64)}, "expected weights, got a tensor of torch.complex64"),
        ({"ln.weight": torch.ones(2, device="meta")}, "asks for torch._utils._rebuild_meta_tensor_no_storage"),
        ({}, "no tensor 'node_embedding.weight'"),
    ],
)
@pytest.mark.parametrize("save", [torch.save, save_legacy], ids=["new", "legacy"])
def test_files_with_other_contents(save, content, message, tmp_path):
    save(content, tmp_path / "ghn.pt")
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "ghn.pt")


def test_missing_files_and_folders_without_a_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot read .*none\.pt: .*No such file.*Expected a folder with"):
        read_checkpoint(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match=r"the folder has no config\.json and no model\.safetensors\. Expected"):
        read_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").mkdir()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"the folder has no model\.safetensors"):
        read_checkpoint(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")
def test_pipes_and_devices_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", "/dev/stdin", "/proc/self/mem"):
        with pytest.raises(CheckpointError, match="an empty file, a pipe or a device"):
            read_checkpoint(path)
    for name, other in (("model.safetensors", "config.json"), ("config.json", "model.safetensors")):
        folder = tmp_path / name
        write_folder(folder, TINY, OURS)
        (folder / name).unlink()
        os.mkfifo(folder / name)
        with pytest.raises(CheckpointError, match=rf"the folder has no {name}"):
            read_checkpoint(folder)
        assert (folder / other).is_file()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b"{", "JSONDecodeError"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "config.json is not the configuration"),
        (json.dumps(TINY.replace(weight_norm=False).to_dict()).encode(), "config.json is not the configuration"),
        (b" " * (1 << 20) + b"{}", "config.json is too large"),
        (b"\xff\xfe", "UnicodeDecodeError"),
    ],
)
def test_folders_with_another_configuration(config, message, tmp_path):
    write_folder(tmp_path, TINY, OURS)
    (tmp_path / "config.json").write_bytes(config)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path)


def test_a_header_without_a_dictionary_as_configuration(tmp_path):
    safetensors.torch.save_file(OURS, tmp_path / "ghn.safetensors", {"config": "[1]"})
    with pytest.raises(CheckpointError, match=r"expected a dictionary as the configuration in its header, got \[1\]"):
        read_checkpoint(tmp_path / "ghn.safetensors")


def test_a_folder_without_a_configuration_in_the_header(tmp_path):
    safetensors.torch.save_file(STATE, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(TINY.to_dict()))
    config, state = read_checkpoint(tmp_path)
    assert config == TINY
    assert same(state, OURS)


OLD = {"encoder": "ghn3", "decoder": "conv", "hidden_channels": 12, "max_channels": 5, "max_kernel_size": 11,
       "num_classes": 7, "layers": 2, "heads": 3, "final_norm": True, "weight_norm": True,
       "kernel_crop": "center"}  # fmt: skip


def test_a_configuration_of_an_earlier_version(tmp_path):
    safetensors.torch.save_file(OURS, tmp_path / "model.safetensors", {"format": "pt", "config": json.dumps(OLD)})
    (tmp_path / "config.json").write_text(json.dumps(OLD))
    assert read_checkpoint(tmp_path)[0] == TINY
