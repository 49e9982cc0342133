import copy
import dataclasses

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch_geometric.data import Batch

from ghn_pyg import GHN, CheckpointError, TracingError, from_module, from_pretrained
from tests.models.ghns import ENCODERS, IMAGES, X, dense, make, shape_of, vision
from tests.tracing.helpers import assert_unchanged, network, snapshot

EACH = pytest.mark.parametrize("encoder", ENCODERS)


# --- writing into a network ------------------------------------------------------------------------------------------


@EACH
def test_in_place_equals_predicted(encoder):
    ghn, model = make(encoder), vision()
    before, graph = snapshot(model), from_module(model, IMAGES)
    expected = ghn.predict(graph, seed=3)
    assert ghn.initialize(model, graph, seed=3) is model
    for name, parameter in model.named_parameters():
        if name == "token":
            assert torch.equal(parameter, before["tensor", name][-1])
        else:
            assert torch.equal(parameter, expected[name])
        assert parameter.requires_grad
        assert parameter.grad is None
        assert parameter.is_leaf
        assert id(parameter) == before["tensor", name][0]
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before["tensor", name][-1])


def test_calling_initialises():
    ghn, model = make(), nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 2, 1)).train()
    expected = ghn.predict(model)
    assert ghn(model) is model
    torch.testing.assert_close(dict(model.named_parameters()), dict(expected), rtol=0, atol=0)
    assert model.training
    kept = model[1].weight.detach().clone().fill_(3)
    nn.init.constant_(model[1].weight, 3)
    ghn(model, keep_classifier=True)
    assert torch.equal(model[1].weight, kept)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_of_another_precision(dtype):
    ghn, model = make(), vision().to(dtype)
    graph = from_module(model, IMAGES.to(dtype))
    expected = ghn.predict(graph, seed=3)
    ghn.initialize(model, graph, seed=3)
    for name, values in expected.items():
        assert torch.equal(model.get_parameter(name), values.to(dtype))


def test_networks_in_another_memory_order():
    ghn, model = make(), vision().to(memory_format=torch.channels_last)
    graph = from_module(model, IMAGES)
    ghn.initialize(model, graph, seed=3)
    assert model.conv.weight.is_contiguous(memory_format=torch.channels_last)
    for name, values in ghn.predict(graph, seed=3).items():
        assert torch.equal(model.get_parameter(name), values)


def test_tied_parameters_stay_tied():
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    model[1].weight = model[0].weight
    graph, ghn = from_module(model, X), make()
    ghn.initialize(model, graph)
    assert model[1].weight is model[0].weight
    assert torch.equal(model[0].weight, ghn.predict(graph)["0.weight"])


def test_networks_without_memory():
    ghn = make()
    with torch.device("meta"):
        model = dense()
    graph = from_module(model, X)
    with pytest.raises(ValueError, match=r"0\.weight is on the meta device and has no memory to write into; call "):
        ghn.initialize(model, graph)
    prediction = ghn.predict(graph)
    assert functional_call(model, dict(prediction), (X,)).shape == (2, 3)
    assert not any(tensor.is_meta for tensor in prediction.values())
    assert ghn.initialize(model.to_empty(device="cpu"), graph)(X).isfinite().all()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (nn.Sequential(nn.Linear(5, 11), nn.ReLU(), nn.Linear(11, 2, bias=False)),
         r"2\.weight has shape \(3, 11\) in the graph, and Sequential has shape \(2, 11\); build the graph from this"),
        (nn.Sequential(nn.Linear(5, 11), nn.ReLU(), nn.ReLU(), nn.Linear(11, 3)),
         r"2\.weight has shape \(3, 11\) in the graph, and Sequential has no such parameter"),
    ],
)  # fmt: skip
def test_graphs_of_another_network(other, message):
    before = snapshot(other)
    with pytest.raises(ValueError, match="the graph was built from another network: " + message):
        make().initialize(other, from_module(dense(), X))
    assert_unchanged(other, before)


def test_batches_cannot_be_written_into_one_network():
    batch = Batch.from_data_list([from_module(dense(), X)] * 2)
    with pytest.raises((TypeError, ValueError), match="batch"):
        make().initialize(dense(), batch)


# --- unusual networks ------------------------------------------------------------------------------------------------

UNUSUAL = {
    "one node": (lambda: nn.Embedding(13, 7), torch.zeros(2, 3, dtype=torch.long)),
    "no bias": (lambda: nn.Linear(5, 3, bias=False), X),
    "one number": (lambda: nn.Linear(1, 1, bias=False), torch.rand(2, 1)),
    "wide": (lambda: nn.Sequential(nn.Linear(5, 20_011), nn.Linear(20_011, 3)), X),
    "wide convolution": (lambda: nn.Conv2d(3, 1009, 3), IMAGES),
    "large kernels": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 31, groups=3, padding=15), nn.Conv2d(6, 2, (1, 7))), IMAGES,
    ),
    "deep": (lambda: nn.Sequential(*(nn.Linear(5, 5) for _ in range(300))), X),
    "norm of a map": (lambda: nn.Sequential(nn.LayerNorm([3, 7, 7]), nn.Conv2d(3, 2, 1)), IMAGES),
    "root-mean-square norm of a map": (lambda: nn.Sequential(nn.RMSNorm([7, 7]), nn.Conv2d(3, 2, 1)), IMAGES),
}  # fmt: skip


@pytest.mark.parametrize("encoder", ["ghn3", "ghn2"])
@pytest.mark.parametrize(("build", "inputs"), UNUSUAL.values(), ids=UNUSUAL)
def test_unusual_networks(build, inputs, encoder):
    ghn, model = make(encoder), build()
    graph = from_module(model, inputs)
    prediction = ghn.predict(graph, seed=3)
    assert shape_of(prediction) == {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert all(tensor.isfinite().all() and tensor.any() for tensor in prediction.values())
    assert ghn.initialize(model, graph, seed=3)(inputs).isfinite().all()
    other = ghn.predict([from_module(dense(), X), graph], seed=3)[1]
    torch.testing.assert_close(dict(other), dict(prediction), rtol=1e-3, atol=1e-5)


def emptied(layer):
    """The layer without output channels; PyTorch warns where it initialises one itself."""
    for name, parameter in layer.named_parameters():
        setattr(layer, name, nn.Parameter(parameter.detach()[:0]))
    return layer


@EACH
def test_layers_without_channels(encoder):
    layers = {"a": nn.Conv2d(3, 5, 1), "b": emptied(nn.Conv2d(5, 2, 1)), "c": nn.Conv2d(5, 2, 1)}
    model = network(lambda self, x: self.c(torch.cat([self.a(x), self.b(self.a(x))], 1)), **layers)
    graph, ghn = from_module(model, IMAGES), make(encoder)
    prediction = ghn.predict(graph)
    assert shape_of(prediction) == {
        "a.weight": (5, 3, 1, 1), "a.bias": (5,), "b.weight": (0, 5, 1, 1), "b.bias": (0,), "c.weight": (2, 5, 1, 1),
        "c.bias": (2,),
    }  # fmt: skip
    assert all(tensor.isfinite().all() for tensor in prediction.values())
    ghn.initialize(model, graph)
    for name, values in prediction.items():
        assert torch.equal(model.get_parameter(name), values)


def test_nothing_but_a_layer_without_channels():
    prediction = make().predict(from_module(emptied(nn.Linear(5, 3)), X))
    assert shape_of(prediction) == {"weight": (0, 5), "bias": (0,)}


@EACH
def test_distances_beyond_one_byte_stay(encoder):
    ghn, graph = make(encoder), from_module(UNUSUAL["deep"][0](), X, cutoff=1000)
    before = graph.distance.clone()
    first, second = ghn.predict(graph), ghn.predict(graph)
    assert before.max() == 600
    assert torch.equal(graph.distance, before)
    torch.testing.assert_close(dict(second), dict(first), rtol=0, atol=0)


def test_vocabularies_are_predicted_and_not_drawn():
    ghn, graph = make(), from_module(nn.Embedding(30_011, 13), torch.zeros(2, 3, dtype=torch.long))
    state = torch.get_rng_state()
    table = ghn.predict(graph)["weight"]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(table[173**2 :], table[: 30_011 - 173**2])


# --- saving and loading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", ["conv", "mlp"])
@EACH
def test_saved_and_loaded(encoder, decoder, tmp_path):
    ghn, graph = make(encoder, decoder), from_module(vision(), IMAGES)
    assert ghn.save_pretrained(tmp_path / "new" / "folder") is None
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "README.md", "config.json", "model.safetensors",
    ]  # fmt: skip
    loaded = GHN.from_pretrained(tmp_path / "new" / "folder")
    assert loaded.config == ghn.config
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    torch.testing.assert_close(loaded.state_dict(), ghn.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(dict(loaded.predict(graph, seed=3)), dict(ghn.predict(graph, seed=3)), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_on_disk(dtype, tmp_path):
    """Half precision is read as single precision, with which everything works."""
    ghn = make().to(dtype)
    ghn.save_pretrained(tmp_path)
    state = from_pretrained(tmp_path).state_dict()
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    expected = {name: tensor.to(wide) for name, tensor in ghn.state_dict().items()}
    torch.testing.assert_close(state, expected, rtol=0, atol=0)


def test_saving_over_an_older_one(tmp_path):
    make("ghn2").save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("my own words")
    (tmp_path / "notes.txt").write_text("stay")
    ghn = make()
    ghn.save_pretrained(tmp_path)
    loaded = from_pretrained(tmp_path)
    assert loaded.config == ghn.config
    torch.testing.assert_close(loaded.state_dict(), ghn.state_dict(), rtol=0, atol=0)
    assert (tmp_path / "README.md").read_text() == "my own words"
    loaded.save_pretrained(tmp_path)
    torch.testing.assert_close(loaded.state_dict(), ghn.state_dict(), rtol=0, atol=0)
    assert (tmp_path / "notes.txt").read_text() == "stay"


def test_the_model_card(tmp_path):
    make().save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "library_name: ghn_pyg" in card
    assert "- graph-hypernetwork" in card
    assert "from_pretrained(" in card


def test_states_are_copied():
    ghn = make()
    state = ghn.state_dict()
    loaded = GHN.from_state(ghn.config, state)
    owned = {tensor.untyped_storage().data_ptr() for tensor in state.values()}
    assert not any(tensor.untyped_storage().data_ptr() in owned for tensor in loaded.state_dict().values())
    torch.testing.assert_close(loaded.state_dict(), state, rtol=0, atol=0)
    assert not any(tensor.is_meta for tensor in (*loaded.parameters(), *loaded.buffers()))


def test_states_that_do_not_fit():
    ghn = make()
    state = ghn.state_dict()
    state["norm.weight"] = torch.ones(13)
    state["other"] = state.pop("norm.bias")
    message = (
        r"the checkpoint does not fit the model: 1 missing \(norm.bias \(12,\)\); 1 unexpected \(other \(12,\)\); "
        r"1 of another shape \(norm.weight: expected \(12,\), got \(13,\)\)"
    )
    with pytest.raises(CheckpointError, match=message):
        GHN.from_state(ghn.config, state)


def test_copies_are_independent():
    ghn, graph = make(), from_module(dense(), X)
    other, expected = copy.deepcopy(ghn), ghn.predict(graph)
    with torch.no_grad():
        for parameter in ghn.parameters():
            parameter.zero_()
    torch.testing.assert_close(dict(other.predict(graph)), dict(expected), rtol=0, atol=0)


@pytest.mark.parametrize("networks", [lambda: from_module(dense(), X), lambda: [dense()]])
def test_what_is_no_network(networks):
    message = (
        r"initialises one torch.nn.Module in place, got (ArchData|list) and NoneType; call ghn.predict.* ghn.initialize"
    )
    with pytest.raises(TypeError, match=message):
        make()(networks())


def test_networks_without_images():
    """The error says how; what it says works."""
    model, ghn = dense(), make()
    with pytest.raises(TracingError, match=r"from_module\(model, example_inputs\); ghn\.initialize\(model, graph\)"):
        ghn(model)
    assert ghn.initialize(model, from_module(model, X)) is model
    other = ghn(dense(), X)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


def test_what_is_no_graph_and_what_is_one_changes_nothing():
    model, ghn = dense(), make()
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(TypeError, match=r"expected a graph, got Tensor; .* ghn\(model, example_inputs\)"):
        ghn.initialize(model, X)
    with pytest.raises(TypeError, match=r"in place, got \w+ and ArchData; .* ghn.initialize\(model, graph\)"):
        ghn(model, from_module(model, X))
    with pytest.raises(TypeError, match=r"expected a torch.nn.Module, got str 'resnet18'"):
        ghn("resnet18")
    assert all(torch.equal(one, two) for one, two in zip(before, model.parameters(), strict=True))


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def _memory_filled():
    """Memory that is set aside holds NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_memory_filled")
@pytest.mark.parametrize("model", [vision(), vision(classes=3, bias=False), nn.Linear(3 * 49, 2)])
def test_every_number_is_written(model):
    assert torch.empty(3).isnan().all()
    inputs = IMAGES.flatten(1) if isinstance(model, nn.Linear) else IMAGES
    prediction = make().predict(from_module(model, inputs))
    assert prediction
    assert all(tensor.isfinite().all() for tensor in prediction.values())


@pytest.mark.parametrize(
    ("name", "role", "message"),
    [
        ("norm.weight", "gian", "'norm.weight' the role 'gian', expected weight or gain or bias or position"),
        ("head.bias", "gain", "'head.bias' the role 'gain' in the classification layer, expected weight or bias"),
    ],
)
def test_roles_that_are_not_decoded(name, role, message):
    """Such a parameter would come out as the memory happened to be."""
    model = vision()
    graph, before = from_module(model, IMAGES), snapshot(model)
    for specs in graph.params:
        specs[:] = [dataclasses.replace(spec, role=role) if spec.name == name else spec for spec in specs]
    ghn = make()
    with pytest.raises(ValueError, match=f"the graph gives {message}"):
        ghn.predict(graph)
    with pytest.raises(ValueError, match=f"the graph gives {message}"):
        ghn.initialize(model, graph)
    assert_unchanged(model, before)
