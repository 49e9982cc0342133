import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ghn_pyg import load_prediction
from ghn_pyg.models.checkpoints.shard_reader import INDEX_FILE
from tests.tracing.helpers import assert_unchanged, snapshot


def dense(out=3):
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, out))


def prediction_for(model):
    draw = torch.Generator().manual_seed(5)
    return {name: torch.randn(parameter.shape, generator=draw) for name, parameter in model.named_parameters()}


def test_parameters_are_copied_in_place():
    model = dense()
    prediction, before = prediction_for(model), snapshot(model)
    prediction["0.weight"].requires_grad_()
    assert load_prediction(model, prediction) is model
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, prediction[name])
        assert id(parameter) == before["tensor", name][0]
        assert parameter.requires_grad
        assert parameter.is_leaf
        assert parameter.data_ptr() != prediction[name].data_ptr()


def test_names_of_a_file_are_shown_without_control_characters(tmp_path):
    save_file({"\x1b[2J" * 100: torch.ones(3)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="belongs to another network") as error:
        load_prediction(dense(), tmp_path / "x.safetensors")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 500


def test_other_parameters_keep_their_values():
    model = dense()
    before = snapshot(model)
    load_prediction(model, {"2.bias": torch.ones(3)})
    assert model[2].bias.tolist() == [1, 1, 1]
    for name in ("0.weight", "0.bias", "2.weight"):
        assert torch.equal(model.get_parameter(name), before["tensor", name][-1])
    assert load_prediction(model, {}) is model


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_of_another_precision(dtype):
    model = dense().to(dtype)
    prediction = prediction_for(model)
    load_prediction(model, prediction)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, prediction[name].to(dtype))


def test_either_name_of_a_shared_parameter():
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    model[1].weight = model[0].weight
    load_prediction(model, {"1.weight": torch.full((5, 5), 3.0)})
    assert model[0].weight.unique().tolist() == [3]
    assert model[1].weight is model[0].weight


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("2.weight", (3, 5), r"2.weight has shape \(3, 5\) in the prediction, and Sequential has shape \(3, 7\)"),
        ("2.bias", (1,), r"2.bias has shape \(1,\) in the prediction, and Sequential has shape \(3,\)"),
        ("2.gain", (3,), r"2.gain has shape \(3,\) in the prediction, and Sequential has no such parameter"),
    ],
)
def test_predictions_for_another_network(name, shape, message):
    model = dense()
    before = snapshot(model)
    with pytest.raises(ValueError, match=f"the prediction belongs to another network: {message}"):
        load_prediction(model, prediction_for(model) | {name: torch.ones(shape)})
    assert_unchanged(model, before)


@pytest.mark.parametrize(
    ("prediction", "got"),
    [(7, "int"), (None, "NoneType"), ([torch.ones(3)], "list"), ({"2.bias": [1, 2, 3]}, "list")],
)
def test_objects_that_are_no_prediction(prediction, got):
    with pytest.raises(TypeError, match=f"expected tensors by name, or the path of a file or folder, got {got}"):
        load_prediction(dense(), prediction)


def test_a_network_without_memory():
    with torch.device("meta"):
        model = dense()
    with pytest.raises(ValueError, match=r"0.weight is on the meta device .*; call model.to_empty\(device=...\) first"):
        load_prediction(model, prediction_for(dense()))


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file(kind, tmp_path):
    model, expected = dense(), prediction_for(dense())
    save_file(expected, tmp_path / "dense.safetensors")
    assert load_prediction(model, kind(tmp_path / "dense.safetensors")) is model
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, expected[name])


def write_shards(folder, *shards):
    """A folder of shards of another library, without metadata."""
    files = [f"part-{position}.safetensors" for position in range(len(shards))]
    for file, tensors in zip(files, shards, strict=True):
        save_file(tensors, folder / file)
    weight_map = {tensor: file for file, tensors in zip(files, shards, strict=True) for tensor in tensors}
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))


def test_a_folder_of_shards(tmp_path):
    model, expected = dense(), prediction_for(dense())
    names = list(expected)
    write_shards(tmp_path, *[{name: expected[name] for name in part} for part in (names[2:], names[:1], names[1:2])])
    assert load_prediction(model, tmp_path) is model
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, expected[name])


def test_bad_shards_leave_the_network_unchanged(tmp_path):
    model = dense()
    before = snapshot(model)
    write_shards(tmp_path, {"0.bias": torch.ones(7)}, {"2.bias": torch.ones(5)})
    with pytest.raises(ValueError, match=r"another network: 2.bias has shape \(5,\)"):
        load_prediction(model, tmp_path)
    write_shards(tmp_path, {"0.bias": torch.ones(7)}, {"2.bias": torch.ones(3)})
    last = tmp_path / "part-1.safetensors"
    last.write_bytes(last.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"part-1.safetensors is damaged"):
        load_prediction(model, tmp_path)
    last.unlink()
    with pytest.raises(FileNotFoundError, match="part-1"):
        load_prediction(model, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"expected a .safetensors file, or a folder with .*nothing"):
        load_prediction(model, tmp_path / "nothing")
    assert_unchanged(model, before)
