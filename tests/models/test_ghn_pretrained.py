import pytest
import torch

from ghn_pyg import GHN, CheckpointError, from_module, from_pretrained
from tests.models.ghns import IMAGES, make, vision


@pytest.mark.parametrize("decoder", ["conv", "mlp"])
def test_saved_and_loaded(decoder, tmp_path):
    ghn, graph, folder = make(decoder=decoder), from_module(vision(), IMAGES), tmp_path / "new" / "folder"
    assert ghn.save_pretrained(folder) is None
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    loaded = GHN.from_pretrained(folder)
    assert loaded.config == ghn.config
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    torch.testing.assert_close(loaded.state_dict(), ghn.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(dict(loaded.predict(graph, seed=3)), dict(ghn.predict(graph, seed=3)), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_half_precision_is_loaded_as_single_precision(dtype, tmp_path):
    ghn = make().to(dtype)
    ghn.save_pretrained(tmp_path)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    expected = {name: tensor.to(wide) for name, tensor in ghn.state_dict().items()}
    torch.testing.assert_close(from_pretrained(tmp_path).state_dict(), expected, rtol=0, atol=0)


def test_saving_replaces_a_checkpoint_and_leaves_other_files(tmp_path):
    make("ghn2").save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert all(text in card for text in ("library_name: ghn_pyg", "- graph-hypernetwork", "from_pretrained("))
    (tmp_path / "README.md").write_text("my own words")
    (tmp_path / "notes.txt").write_text("stay")
    ghn = make()
    ghn.save_pretrained(tmp_path)
    loaded = from_pretrained(tmp_path)
    loaded.save_pretrained(tmp_path)  # over the file that it is mapped from
    torch.testing.assert_close(from_pretrained(tmp_path).state_dict(), ghn.state_dict(), rtol=0, atol=0)
    assert (tmp_path / "README.md").read_text() == "my own words"
    assert (tmp_path / "notes.txt").read_text() == "stay"


def test_states_are_copied():
    ghn = make()
    loaded = GHN.from_state(ghn.config, ghn.state_dict())
    torch.testing.assert_close(loaded.state_dict(), ghn.state_dict(), rtol=0, atol=0)
    owned = {parameter.data_ptr() for parameter in ghn.parameters()}
    assert owned.isdisjoint(parameter.data_ptr() for parameter in loaded.parameters())


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite(value, tmp_path):
    ghn = make()
    ghn.decoder.weight.fc.bias.data[-1] = value
    ghn.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"infinite or not a number in decoder\.weight\.fc\.bias;"):
        from_pretrained(tmp_path)


def test_states_that_do_not_fit():
    ghn = make()
    state = ghn.state_dict()
    state["norm.weight"] = torch.ones(13)
    state["other"] = state.pop("norm.bias")
    with pytest.raises(CheckpointError, match="the checkpoint does not fit the model") as error:
        GHN.from_state(ghn.config, state)
    for part in ('Missing key(s) in state_dict: "norm.bias"', 'Unexpected key(s) in state_dict: "other"',
                 "size mismatch for norm.weight: copying a param with shape torch.Size([13])"):  # fmt: skip
        assert part in str(error.value)
