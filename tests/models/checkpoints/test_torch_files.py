import argparse
import os
import pickle
import zipfile

import pytest
import torch

from ghn_pyg import CheckpointError
from ghn_pyg.models.checkpoints import read_checkpoint
from ghn_pyg.models.checkpoints.published_keys import from_published
from tests.models.checkpoints.checkpoint_files import TINY, published_state, same, training_checkpoint
from tests.models.checkpoints.pickle_attacks import Call, attacks, save_legacy, torch_file

STATE = published_state(TINY)
EACH_SAVE = pytest.mark.parametrize("save", [torch.save, save_legacy], ids=["new", "legacy"])


def test_changing_mapped_tensors_leaves_the_file_alone(tmp_path):
    torch.save(STATE, tmp_path / "ghn.pt")
    read_checkpoint(tmp_path / "ghn.pt")[1]["norm.weight"].zero_()
    assert same(read_checkpoint(tmp_path / "ghn.pt")[1], from_published(STATE))


def test_globals_that_the_user_allowed_stay_allowed(tmp_path):
    torch.save(training_checkpoint(STATE), tmp_path / "ghn.pt")
    before = set(torch.serialization.get_safe_globals())
    read_checkpoint(tmp_path / "ghn.pt")
    assert set(torch.serialization.get_safe_globals()) == before
    with torch.serialization.safe_globals([argparse.Namespace]):
        read_checkpoint(tmp_path / "ghn.pt")
        assert argparse.Namespace in torch.serialization.get_safe_globals()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize(("save", "protocol"), [(torch.save, 2), (torch.save, 4), (save_legacy, 2)])
@pytest.mark.parametrize(
    ("content", "asked"),
    [
        (Call(os.system, "true"), f"{os.system.__module__}.system"),
        (torch.nn.Linear(2, 3), "torch.nn.modules.linear.Linear"),
    ],
)
def test_refusals_name_what_the_file_asks_for(content, asked, protocol, save, tmp_path):
    """PyTorch's own message advises to trust the file."""
    save(content, tmp_path / "ghn.pt", pickle_protocol=protocol)
    with pytest.raises(CheckpointError, match=rf"the file asks for {asked}, which no checkpoint needs") as error:
        read_checkpoint(tmp_path / "ghn.pt")
    assert "weights_only" not in str(error.value)


def rewritten(path, change, compression=zipfile.ZIP_STORED):
    """Replaces the records of a torch.save file."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(name, change(name, content))


def test_a_pickle_planted_into_a_file(tmp_path):
    path = tmp_path / "ghn.pt"
    torch.save({"ln.weight": torch.ones(3)}, path)
    attack = pickle.dumps(Call(os.system, f"touch {tmp_path / 'marker'}"), 2)
    rewritten(path, lambda name, content: attack if name.endswith("data.pkl") else content)
    with pytest.raises(CheckpointError, match="cannot load"):
        read_checkpoint(path)
    assert not (tmp_path / "marker").exists()


def test_compressed_records(tmp_path):
    path = tmp_path / "ghn.pt"
    torch.save({"ln.weight": torch.ones(3)}, path)
    rewritten(path, lambda name, content: content, zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="its records are compressed"):
        read_checkpoint(path)


@pytest.mark.parametrize("count", [10**6, 10**12, 2**62])
def test_a_tensor_that_claims_more_than_the_file_holds(count, tmp_path):
    path = tmp_path / "ghn.pt"
    torch.save({"ln.weight": torch.ones(77)}, path)
    body = count.to_bytes(8, "little")
    claimed = b"\x8a\x08" + body
    rewritten(path, lambda name, content: content.replace(b"K\x4d", claimed) if name.endswith("data.pkl") else content)
    with pytest.raises(CheckpointError, match="cannot load"):
        read_checkpoint(path)


NESTED_KEY = b"\x80\x02})" + b"\x85" * 500_000 + b"Ns."


def test_nested_keys_that_would_overflow_the_stack(tmp_path):
    path = tmp_path / "ghn.pt"
    torch.save({"ln.weight": torch.ones(3)}, path)
    rewritten(path, lambda name, content: NESTED_KEY if name.endswith("data.pkl") else content)
    legacy = torch_file({}, legacy=True).replace(b"\x80\x02}q\x00.\x80\x02]", NESTED_KEY + b"\x80\x02]")
    (tmp_path / "legacy.pt").write_bytes(legacy)
    for name in ("ghn.pt", "legacy.pt"):
        with pytest.raises(CheckpointError, match="more instructions"):
            read_checkpoint(tmp_path / name)


def test_a_torchscript_file(tmp_path):
    path = tmp_path / "ghn.pt"
    torch.save({"ln.weight": torch.ones(3)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{archive.namelist()[0].split('/')[0]}/constants.pkl", b"")
    with pytest.raises(CheckpointError, match="TorchScript"):
        read_checkpoint(path)


def test_the_environment_cannot_turn_safety_off(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"ln.weight": attacks(tmp_path / "marker")["nested storage"]}, tmp_path / "ghn.pt")
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "ghn.pt")
    assert not (tmp_path / "marker").exists()
