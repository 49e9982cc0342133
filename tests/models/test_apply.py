import json
from pathlib import Path

import pytest
import torch
from ghn_pyg.models.checkpoints.sharded_files import INDEX_FILE
from safetensors.torch import save_file
from torch import nn
from torch_geometric.data import Batch

from ghn_pyg import GHN, GHNConfig, from_module, load_prediction
from ghn_pyg.models.apply import destinations
from tests.tracing.helpers import assert_unchanged, snapshot

X = torch.rand(2, 5, generator=torch.Generator().manual_seed(3))


def dense(out=3):
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, out))


def tied():
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    model[1].weight = model[0].weight
    return model


# --- places to write into --------------------------------------------------------------------------------------------


def test_destinations_are_the_parameters_themselves():
    model = dense()
    found = destinations(model, from_module(model, X))
    assert list(found) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    for name, parameter in model.named_parameters():
        assert found[name].data_ptr() == parameter.data_ptr()
        assert not found[name].requires_grad


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (dense(2), r"2.weight has shape \(3, 7\) in the graph, and Sequential has shape \(2, 7\)"),
        (nn.Linear(5, 7), r"0.weight has shape \(7, 5\) in the graph, and Linear has no such parameter"),
        (nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3, bias=False)),
         r"2.bias has shape \(3,\) in the graph, and Sequential has no such parameter"),
    ],
)  # fmt: skip
def test_graphs_of_another_network(model, message):
    before = snapshot(model)
    with pytest.raises(ValueError, match=f"{message}; build the graph from this network"):
        destinations(model, from_module(dense(), X))
    assert_unchanged(model, before)


def test_networks_without_memory():
    with torch.device("meta"):
        model = dense()
    with pytest.raises(ValueError, match=r"0.weight is on the meta device .*; call model.to_empty\(device=...\) first"):
        destinations(model, from_module(model, X))


def test_a_network_partly_without_memory():
    model = dense()
    graph = from_module(model, X)
    model[2] = nn.Linear(7, 3, device="meta")
    with pytest.raises(ValueError, match=r"2\.weight is on the meta device"):
        destinations(model, graph)


def test_larger_networks_around_the_graph():
    model = dense()
    graph = from_module(model, X)
    model.extra = nn.Linear(2, 2)
    assert "extra.weight" in destinations(model, graph)


# --- predictions -----------------------------------------------------------------------------------------------------


def prediction_for(model):
    draw = torch.Generator().manual_seed(5)
    return {name: torch.randn(parameter.shape, generator=draw) for name, parameter in model.named_parameters()}


def test_loading():
    model = dense()
    prediction, before = prediction_for(model), snapshot(model)
    assert load_prediction(model, prediction) is model
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, prediction[name])
        assert id(parameter) == before["tensor", name][0]
        assert parameter.requires_grad
        assert parameter.is_leaf
        assert parameter.data_ptr() != prediction[name].data_ptr()


def test_loading_a_part():
    model = dense()
    before = snapshot(model)
    load_prediction(model, {"2.bias": torch.ones(3)})
    assert model[2].bias.tolist() == [1, 1, 1]
    for name in ("0.weight", "0.bias", "2.weight"):
        assert torch.equal(model.get_parameter(name), before["tensor", name][-1])
    assert load_prediction(model, {}) is model


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_loading_into_another_precision(dtype):
    model = dense().to(dtype)
    prediction = prediction_for(model)
    load_prediction(model, prediction)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, prediction[name].to(dtype))


def test_loading_what_has_gradients():
    model = dense()
    load_prediction(model, {name: value.requires_grad_() for name, value in prediction_for(model).items()})
    assert all(parameter.is_leaf for parameter in model.parameters())


def test_loading_by_either_name_of_a_shared_parameter():
    model = tied()
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
    with pytest.raises(ValueError, match=f"the prediction is for another network: {message}"):
        load_prediction(model, prediction_for(model) | {name: torch.ones(shape)})
    assert_unchanged(model, before)


@pytest.mark.parametrize(
    ("prediction", "got"),
    [(7, "int"), (None, "NoneType"), ([torch.ones(3)], "list"), ({"2.bias": [1, 2, 3]}, "list")],
)
def test_what_is_no_prediction(prediction, got):
    model = dense()
    before = snapshot(model)
    with pytest.raises(TypeError, match=f"expected tensors by name, or the path of a file or folder, got {got}"):
        load_prediction(model, prediction)
    assert_unchanged(model, before)


@pytest.mark.parametrize("kind", [str, Path])
def test_loading_a_file(kind, tmp_path):
    model, expected = dense(), prediction_for(dense())
    save_file(expected, tmp_path / "dense.safetensors")
    assert load_prediction(model, kind(tmp_path / "dense.safetensors")) is model
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, expected[name])


def write_shards(folder, *shards):
    """A folder of shards that somebody else wrote, without metadata."""
    names = [f"part-{position}.safetensors" for position in range(len(shards))]
    for name, tensors in zip(names, shards, strict=True):
        save_file(tensors, folder / name)
    weight_map = {tensor: name for name, tensors in zip(names, shards, strict=True) for tensor in tensors}
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))


def test_loading_a_folder_of_shards(tmp_path):
    model, expected = dense(), prediction_for(dense())
    names = list(expected)
    write_shards(tmp_path, *[{name: expected[name] for name in some} for some in (names[2:], names[:1], names[1:2])])
    assert load_prediction(model, tmp_path) is model
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, expected[name])


def test_a_shard_for_another_network_leaves_everything_as_it_was(tmp_path):
    model = dense()
    before = snapshot(model)
    write_shards(tmp_path, {"0.bias": torch.ones(7)}, {"2.bias": torch.ones(5)})
    with pytest.raises(ValueError, match=r"for another network: 2.bias has shape \(5,\) in the prediction, and Sequ"):
        load_prediction(model, tmp_path)
    assert_unchanged(model, before)


def test_damaged_files_leave_everything_as_it_was(tmp_path):
    model = dense()
    before = snapshot(model)
    write_shards(tmp_path, {"0.bias": torch.ones(7)}, {"2.bias": torch.ones(3)})
    whole = (tmp_path / "part-1.safetensors").read_bytes()
    (tmp_path / "part-1.safetensors").write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"part-1.safetensors is damaged, or not of this index .*; write it again"):
        load_prediction(model, tmp_path)
    (tmp_path / "part-1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="part-1"):
        load_prediction(model, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"expected a .safetensors file, or a folder with .*nothing"):
        load_prediction(model, tmp_path / "nothing")
    assert_unchanged(model, before)


def test_loading_into_a_network_without_memory():
    with torch.device("meta"):
        model = dense()
    with pytest.raises(ValueError, match="meta device"):
        load_prediction(model, prediction_for(dense()))


def test_graphs_in_a_batch_have_their_own_networks():
    first, second = dense(), dense(2)
    batch = Batch.from_data_list([from_module(first, X), from_module(second, X)])
    for model, graph in zip((first, second), batch.to_data_list(), strict=True):
        assert len(destinations(model, graph)) == 4


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
def test_lazily_built_networks_are_built_and_predicted():
    model = nn.Sequential(
        nn.LazyConv2d(5, 3), nn.LazyBatchNorm2d(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(7)
    )
    state = torch.get_rng_state()
    made = GHN(GHNConfig(hidden_channels=8, max_channels=5, num_classes=7, layers=1, heads=2))
    torch.set_rng_state(state)
    assert made(model) is model
    assert torch.equal(torch.get_rng_state(), state)
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == {
        "0.weight": (5, 3, 3, 3), "0.bias": (5,), "1.weight": (5,), "1.bias": (5,), "4.weight": (7, 5), "4.bias": (7,)
    }  # fmt: skip
    assert all(module.training for module in model.modules())
    assert model[1].num_batches_tracked == 0
    for name, value in made.predict(model).items():
        assert torch.equal(value, model.get_parameter(name))
    assert model(torch.rand(2, 3, 11, 11)).shape == (2, 7)


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
def test_lazily_built_networks_of_other_inputs_have_to_run_once():
    model = nn.Sequential(nn.Linear(5, 3), nn.LazyLinear(7))
    made = GHN(GHNConfig(hidden_channels=8, max_channels=5, num_classes=7, layers=1, heads=2))
    with pytest.raises(ValueError, match=r"built by the first forward pass, which fails .*; run the network once"):
        made(model)
    assert nn.parameter.is_lazy(model[1].weight)
