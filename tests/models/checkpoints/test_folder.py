import argparse
import dataclasses
import gzip
import json
import os
import sys
from collections import OrderedDict

import joblib
import pytest
import safetensors.torch
import torch
from ghn_pyg.models.checkpoints.folder import check_state, read_checkpoint, write_folder
from ghn_pyg.models.checkpoints.key_names import CheckpointError, from_published
from tests.models.checkpoints.checkpoint_files.checkpoint_files import (
    TINY,
    TINY2,
    convolutions,
    hub_form,
    published_state,
    same,
    training_checkpoint,
)

from ghn_pyg.models.config import GHNConfig

STATE = published_state(TINY)
OURS = from_published(STATE)


def ordered(state):
    """As ``Module.state_dict`` gives it, with versions as an attribute."""
    result = OrderedDict(state)
    result._metadata = OrderedDict({"": {"version": 1}})
    return result


def save_joblib(state, path, **options):
    joblib.dump(ordered(hub_form(state)), path, **options)


def save_legacy(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


FORMATS = {
    "joblib": save_joblib,
    "joblib zlib": lambda state, path: save_joblib(state, path, compress=3),
    "joblib gzip": lambda state, path: save_joblib(state, path, compress=("gzip", 1)),
    "joblib protocol 3": lambda state, path: save_joblib(state, path, protocol=3),
    "torch": lambda state, path: torch.save(ordered(state), path),
    "torch legacy": save_legacy,
    "training": lambda state, path: torch.save(training_checkpoint(ordered(state), hid=12), path),
    "training legacy": lambda state, path: save_legacy(training_checkpoint(state), path),
    "compiled": lambda state, path: torch.save({f"_orig_mod.{name}": t for name, t in state.items()}, path),
    "parameters": lambda state, path: joblib.dump({name: torch.nn.Parameter(t) for name, t in state.items()}, path),
    "safetensors": safetensors.torch.save_file,
    "our names": lambda state, path: torch.save(from_published(state), path),
    "our folder": lambda state, path: write_folder(path, TINY, from_published(state)),
}

many = pytest.mark.parametrize("save", FORMATS.values(), ids=FORMATS.keys())


@many
def test_every_format_gives_the_same(save, tmp_path):
    save(STATE, tmp_path / "ghn.pt")
    config, state = read_checkpoint(tmp_path / "ghn.pt")
    assert config == TINY
    assert same(state, OURS)
    assert not any(tensor.requires_grad or type(tensor) is not torch.Tensor for tensor in state.values())
    assert same(read_checkpoint(str(tmp_path / "ghn.pt"))[1], OURS)


@pytest.mark.parametrize("encoder", ["ghn2", "ghn1", "mlp"])
def test_baselines_come_with_convolutions_and_cut_kernels_from_the_corner(encoder, tmp_path):
    config = dataclasses.replace(TINY2, encoder=encoder)
    state = published_state(config)
    joblib.dump(convolutions(state), tmp_path / "ghn2.pt")
    found, ours = read_checkpoint(tmp_path / "ghn2.pt")
    assert found == config
    assert found.kernel_crop == "corner"
    assert same(ours, from_published(state))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("save", [FORMATS["joblib"], FORMATS["torch"], FORMATS["torch legacy"]])
def test_precision_is_kept(save, dtype, tmp_path):
    state = {name: tensor.to(dtype) for name, tensor in STATE.items()}
    save(state, tmp_path / "ghn.pt")
    assert same(read_checkpoint(tmp_path / "ghn.pt")[1], from_published(state))


@pytest.mark.parametrize("save", [FORMATS["joblib"], FORMATS["torch"], FORMATS["torch legacy"]])
def test_views_and_transposed_tensors_come_as_they_were(save, tmp_path):
    state = dict(STATE)
    state["decoder.conv.0.weight"] = STATE["decoder.conv.0.weight"].t().contiguous().t()
    state["ln.weight"], state["ln.bias"] = torch.arange(24.0).view(12, 2).unbind(1)
    save(state, tmp_path / "ghn.pt")
    assert same(read_checkpoint(tmp_path / "ghn.pt")[1], from_published(state))


def test_recent_torch_files_are_mapped_rather_than_read(tmp_path, monkeypatch):
    mapped = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **options: mapped.append(options) or load(*args, **options))
    torch.save(STATE, tmp_path / "ghn.pt")
    _, state = read_checkpoint(tmp_path / "ghn.pt")
    assert [(options["mmap"], options["weights_only"]) for options in mapped] == [(True, True)]
    # What is changed in memory stays there.
    state["norm.weight"].zero_()
    assert same(read_checkpoint(tmp_path / "ghn.pt")[1], OURS)


def test_the_users_allowed_globals_stay_as_they_are(tmp_path):
    torch.save(training_checkpoint(STATE), tmp_path / "ghn.pt")
    before = set(torch.serialization.get_safe_globals())
    read_checkpoint(tmp_path / "ghn.pt")
    assert set(torch.serialization.get_safe_globals()) == before
    with torch.serialization.safe_globals([argparse.Namespace]):
        read_checkpoint(tmp_path / "ghn.pt")
        assert argparse.Namespace in torch.serialization.get_safe_globals()


# What is no checkpoint


@many
def test_files_cut_off_anywhere(save, tmp_path):
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


@pytest.mark.parametrize("compress", [0, ("zlib", 1), ("gzip", 1)])
def test_files_that_go_on_or_are_damaged_within(compress, tmp_path):
    save_joblib(STATE, tmp_path / "ghn.pt", compress=compress)
    content = (tmp_path / "ghn.pt").read_bytes()
    (tmp_path / "ghn.pt").write_bytes(content + b"more" if compress == 0 else content[:-4] + b"\0\1\2\3")
    with pytest.raises(CheckpointError, match=r"goes on after its end|incorrect"):
        read_checkpoint(tmp_path / "ghn.pt")


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
def test_files_that_are_no_checkpoint(content, message, tmp_path):
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
        (torch.ones(3), "expected a dictionary of tensors, got Tensor"),
        ({"ln.weight": 3}, "expected tensors by name, got int at 'ln.weight'"),
        ({5: torch.ones(2)}, "expected tensors by name, got a name of type int"),
        ({"ln.weight": torch.arange(3)}, "expected weights, got a tensor of torch.int64"),
        ({"ln.weight": torch.ones(2, device="meta")}, "on meta at 'ln.weight'"),
        ({}, "no tensor 'node_embedding.weight'"),
    ],
)
@pytest.mark.parametrize("save", [torch.save, save_legacy], ids=["new", "legacy"])
def test_contents_that_are_no_checkpoint(save, content, message, tmp_path):
    save(content, tmp_path / "ghn.pt")
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "ghn.pt")


class Command:
    """Runs a command where it is unpickled without care."""

    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize("save", [torch.save, save_legacy], ids=["new", "legacy"])
@pytest.mark.parametrize(
    ("content", "asked"),
    [(Command(), f"{os.system.__module__}.system"), (torch.nn.Linear(2, 3), "torch.nn.modules.linear.Linear")],
)
def test_what_a_torch_file_asks_for_is_named(content, asked, save, tmp_path):
    """PyTorch's own message advises to load it with all that it runs."""
    save(content, tmp_path / "ghn.pt")
    message = (
        rf"\(UnpicklingError: the file asks for {asked}, which no checkpoint needs\)\. .*, or save the state dict$"
    )
    with pytest.raises(CheckpointError, match=message) as error:
        read_checkpoint(tmp_path / "ghn.pt")
    assert "weights_only" not in str(error.value)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
def test_other_refusals_give_no_advice_either(tmp_path):
    torch.save({"ln.weight": Command()}, tmp_path / "ghn.pt", pickle_protocol=4)
    with pytest.raises(CheckpointError, match=r"the file is not made of tensors and plain values") as error:
        read_checkpoint(tmp_path / "ghn.pt")
    assert "weights_only" not in str(error.value)


def test_missing_files_and_folders_without_a_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot read .*none\.pt: .*No such file.*Expected a folder with"):
        read_checkpoint(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match=r"the folder has no config\.json and no model\.safetensors\. Expected"):
        read_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").mkdir()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"the folder has no model\.safetensors"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "JSONDecodeError"),
        ("[" * 100_000, "RecursionError"),
        ("[]", "config.json is not the configuration"),
        (json.dumps(dataclasses.replace(TINY, weight_norm=False).to_dict()), "config.json is not the configuration"),
        (" " * (1 << 20) + "{}", "config.json is too large"),
        (b"\xff\xfe", "UnicodeDecodeError"),
    ],
)
def test_folders_with_another_configuration(config, message, tmp_path):
    write_folder(tmp_path, TINY, OURS)
    (tmp_path / "config.json").write_bytes(config if isinstance(config, bytes) else config.encode())
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path)


def test_a_header_with_a_configuration_that_is_none(tmp_path):
    safetensors.torch.save_file(OURS, tmp_path / "ghn.safetensors", {"config": "[1]"})
    with pytest.raises(CheckpointError, match=r"expected a dictionary as the configuration in its header, got \[1\]"):
        read_checkpoint(tmp_path / "ghn.safetensors")


def test_a_folder_from_elsewhere_needs_no_header(tmp_path):
    safetensors.torch.save_file(STATE, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(TINY.to_dict()))
    config, state = read_checkpoint(tmp_path)
    assert config == TINY
    assert same(state, OURS)


# Shapes


def test_states_that_fit():
    check_state({name: tensor.shape for name, tensor in OURS.items()}, OURS)


def test_states_that_do_not_fit():
    expected = {"a.weight": torch.Size([2, 3]), "b.bias": torch.Size([5]), "c.bias": torch.Size([7])}
    state = {"a.weight": torch.ones(3, 2), "c.bias": torch.ones(7), "d.bias": torch.ones(11)}
    with pytest.raises(CheckpointError) as error:
        check_state(expected, state)
    assert str(error.value) == (
        "the checkpoint does not fit the model: 1 missing (b.bias (5,)); 1 unexpected (d.bias (11,)); "
        "1 of another shape (a.weight: expected (2, 3), got (3, 2)). "
        "Expected the 3 tensors of its configuration; build the model with the checkpoint's own"
    )
    with pytest.raises(CheckpointError, match=r"13 missing \(0 \(2,\), .*, 9 \(2,\) and 3 more\)\."):
        check_state({str(i): torch.Size([2]) for i in range(13)}, {})


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_states_of_another_type(dtype):
    state = {"a.weight": torch.ones(2, 3), "b.bias": torch.ones(5).to(dtype)}
    with pytest.raises(CheckpointError) as error:
        check_state({name: tensor.shape for name, tensor in state.items()}, state)
    assert f": 1 of another type (b.bias: expected torch.float32 or such, got {dtype}). " in str(error.value)


# Writing


def test_a_written_folder(tmp_path):
    folder = tmp_path / "new" / "ghn"
    write_folder(folder, TINY, {"norm.weight": torch.arange(6.0).view(2, 3).t()}, {"epoch": "75"})
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert GHNConfig.from_dict(json.loads((folder / "config.json").read_text())) == TINY
    with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
        assert file.get_tensor("norm.weight").tolist() == [[0, 3], [1, 4], [2, 5]]
        metadata = file.metadata()
    assert json.loads(metadata.pop("config")) == TINY.to_dict()
    assert metadata == {"format": "pt", "epoch": "75"}


def test_a_model_can_replace_the_checkpoint_that_it_was_mapped_from(tmp_path):
    write_folder(tmp_path, TINY, OURS)
    config, state = read_checkpoint(tmp_path)
    write_folder(tmp_path, config, state)
    assert same(read_checkpoint(tmp_path)[1], OURS)


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_a_failure_leaves_the_old_checkpoint(failing, tmp_path, monkeypatch):
    write_folder(tmp_path, TINY, OURS)

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(CheckpointError, match=r"cannot write a checkpoint into .*: .*No space left on device"):
            write_folder(tmp_path, TINY, {"norm.weight": torch.ones(3)})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert same(read_checkpoint(tmp_path)[1], OURS)


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"cannot write a checkpoint into .*File too large"):
            write_folder(tmp_path / "ghn", TINY, OURS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "ghn").iterdir()) == []


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "ghn").write_text("mine")
    with pytest.raises(CheckpointError, match=r"cannot write a checkpoint into .*ghn: it is a file, expected a folder"):
        write_folder(tmp_path / "ghn", TINY, OURS)
    assert (tmp_path / "ghn").read_text() == "mine"


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(CheckpointError, match=r"cannot write a checkpoint into .*: .*[Pp]ermission denied"):
        write_folder(tmp_path, TINY, OURS)
    tmp_path.chmod(0o700)
    assert list(tmp_path.iterdir()) == []
