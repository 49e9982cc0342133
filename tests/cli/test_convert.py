import os

import torch

from ghn_pyg import GHN
from tests.models.checkpoints.checkpoint_files import TINY2, published_state


def test_convert(run, tmp_path):
    path = tmp_path / "published.pt"
    torch.save(published_state(TINY2), path)
    code, out, err = run("convert", path, "--out", tmp_path / "ours")
    assert (code, err) == (0, "")
    assert out[0] == str(path)
    assert out[-1] == f"saved {tmp_path}/ours"
    ours, published = GHN.from_pretrained(tmp_path / "ours"), GHN.from_pretrained(path)
    assert ours.config == TINY2
    assert all(torch.equal(tensor, published.state_dict()[name]) for name, tensor in ours.state_dict().items())


def test_half_precision(run, ghn, tmp_path):
    assert run("convert", ghn, "--half", "--out", tmp_path)[0] == 0
    small, large = GHN.from_pretrained(tmp_path), GHN.from_pretrained(ghn)
    for name, tensor in small.state_dict().items():
        torch.testing.assert_close(tensor.float(), large.state_dict()[name], rtol=1e-3, atol=1e-7)
    assert (tmp_path / "model.safetensors").stat().st_size < 0.6 * os.path.getsize(f"{ghn}/model.safetensors")
