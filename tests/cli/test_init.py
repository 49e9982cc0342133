import torch
from safetensors.torch import load_file

import ghn_pyg
from ghn_pyg import GHNConfig


def test_init(run, tmp_path):
    code, out, err = run("init", "ghn2", "--out", tmp_path / "new" / "ghn", "--num-classes", 7)
    assert (code, err) == (0, "")
    assert out == ["ghn2", "parameters 2,190,630", f"saved {tmp_path}/new/ghn"]
    ghn = ghn_pyg.from_pretrained(tmp_path / "new" / "ghn")
    assert ghn.config == GHNConfig.preset("ghn2", num_classes=7)


def test_init_follows_the_seed(run, tmp_path):
    states = []
    for number, seed in enumerate(([], ["--seed", 0], ["--seed", 1])):
        assert run("init", "mlp", "--out", tmp_path / str(number), *seed)[0] == 0
        states.append(load_file(tmp_path / str(number) / "model.safetensors"))
    first, same, other = (state["node_embedding.weight"] for state in states)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
