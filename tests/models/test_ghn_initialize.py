import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch_geometric.data import Batch

from ghn_pyg import GHN, CoverageError, GHNConfig, TracingError, from_module
from ghn_pyg.models.trained_for import TrainedFor
from ghn_pyg.utils.warn_once import warn_once
from tests.models.ghns import ENCODERS, IMAGES, X, dense, make, shape_of, vision
from tests.tracing.helpers import assert_unchanged, network, snapshot

EACH = pytest.mark.parametrize("encoder", ENCODERS)


# --- writing into a network ------------------------------------------------------------------------------------------


@EACH
def test_initialize_writes_what_predict_returns(encoder):
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
def test_networks_of_another_precision_and_memory_order(dtype):
    ghn, model = make(), vision().to(dtype).to(memory_format=torch.channels_last)
    graph = from_module(model, IMAGES.to(dtype))
    expected = ghn.predict(graph, seed=3)
    ghn.initialize(model, graph, seed=3)
    assert model.conv.weight.is_contiguous(memory_format=torch.channels_last)
    for name, values in expected.items():
        assert torch.equal(model.get_parameter(name), values.to(dtype))


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


def test_graphs_of_another_network():
    other = nn.Sequential(nn.Linear(5, 11), nn.ReLU(), nn.Linear(11, 2, bias=False))
    before = snapshot(other)
    message = (
        r"the graph belongs to another network: 2\.weight has shape \(3, 11\) in the graph, and .* shape \(2, 11\)"
    )
    with pytest.raises(ValueError, match=message):
        make().initialize(other, from_module(dense(), X))
    assert_unchanged(other, before)


# --- unusual networks ------------------------------------------------------------------------------------------------


def emptied(layer):
    """The layer without output channels; PyTorch warns where it initialises one itself."""
    for name, parameter in layer.named_parameters():
        setattr(layer, name, nn.Parameter(parameter.detach()[:0]))
    return layer


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
    "no channels": (
        lambda: network(
            lambda self, x: self.c(torch.cat([self.a(x), self.b(self.a(x))], 1)),
            a=nn.Linear(5, 3), b=emptied(nn.Linear(3, 2)), c=nn.Linear(3, 2),
        ), X,
    ),
    "root-mean-square norm of a map": (lambda: nn.Sequential(nn.RMSNorm([7, 7]), nn.Conv2d(3, 2, 1)), IMAGES),
}  # fmt: skip


@pytest.mark.parametrize("encoder", ["ghn3", "ghn2"])
@pytest.mark.parametrize(("build", "inputs"), UNUSUAL.values(), ids=UNUSUAL)
def test_unusual_networks(build, inputs, encoder):
    ghn, model = make(encoder), build()
    graph = from_module(model, inputs)
    prediction = ghn.predict(graph, seed=3)
    assert shape_of(prediction) == {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert all(tensor.isfinite().all() and (tensor.any() or 0 in tensor.shape) for tensor in prediction.values())
    assert ghn.initialize(model, graph, seed=3)(inputs).isfinite().all()
    other = ghn.predict([from_module(dense(), X), graph], seed=3)[1]
    torch.testing.assert_close(dict(other), dict(prediction), rtol=1e-3, atol=1e-5)


# --- errors ----------------------------------------------------------------------------------------------------------


def test_bad_arguments_change_nothing_and_say_what_to_call():
    model, ghn = dense(), make()
    before, graph = snapshot(model), from_module(model, X)
    in_place = r"initialises one torch.nn.Module in place, got {}; call ghn.predict.* ghn.initialize\(model, graph\)"
    for networks, name in ((graph, "ArchData"), ([model], "list")):
        with pytest.raises(TypeError, match=in_place.format(f"{name} and NoneType")):
            ghn(networks)
    with pytest.raises(TypeError, match=in_place.format("Sequential and ArchData")):
        ghn(model, graph)
    with pytest.raises(TypeError, match=r"expected a graph, got Tensor; .* ghn\(model, example_inputs\)"):
        ghn.initialize(model, X)
    with pytest.raises(TypeError, match=r"expected a torch.nn.Module, got str 'resnet18'"):
        ghn("resnet18")
    with pytest.raises(ValueError, match="expected the graph of one network, got a batch"):
        ghn.initialize(model, Batch.from_data_list([graph, graph]))
    assert_unchanged(model, before)


def test_networks_that_take_no_images():
    """The error says how; its advice works."""
    model, ghn = dense(), make()
    with pytest.raises(TracingError, match=r"from_module\(model, example_inputs\); ghn\.initialize\(model, graph\)"):
        ghn(model)
    assert ghn.initialize(model, from_module(model, X)) is model
    other = ghn(dense(), X)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


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


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
def test_lazy_layers_get_their_parameters():
    model = nn.Sequential(
        nn.LazyConv2d(5, 3), nn.LazyBatchNorm2d(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(7)
    )
    ghn = GHN(GHNConfig(hidden_channels=8, max_channels=5, num_classes=7, layers=1, heads=2))
    state = torch.get_rng_state()
    assert ghn(model) is model
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert model[1].num_batches_tracked == 0
    for name, value in ghn.predict(model).items():
        assert torch.equal(value, model.get_parameter(name))
    with pytest.raises(ValueError, match="run the network once"):
        ghn(nn.Sequential(nn.Linear(5, 3), nn.LazyLinear(7)))


# --- networks for other classes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [13, 5])
def test_other_classes_than_those_of_the_ghn_are_said_once(classes, caplog):
    warn_once.cache_clear()
    trained_for = TrainedFor(data="ants", image_size=7, mean=(0.3,) * 3, std=(0.2,) * 3, widths=(8,))
    ghn, model = make(trained_for=trained_for), vision(classes)
    before = snapshot(model)
    with pytest.raises(CoverageError, match=f"the GHN is for 11 classes and a network for {classes}"):
        ghn(model, IMAGES, strict=True)
    assert_unchanged(model, before)
    graph = from_module(model, IMAGES)
    with pytest.raises(CoverageError, match="is for 11 classes"):
        ghn.predict(graph, strict=True)
    ghn.predict(graph, strict=True, keep_classifier=True)
    assert caplog.messages == []
    for _ in range(3):
        ghn(model, IMAGES)
    (said,) = caplog.messages
    assert "keep the classification layer" in said
    # Fewer classes are an ordinary choice where nothing is known of the training.
    caplog.clear()
    warn_once.cache_clear()
    make().predict(graph)
    assert len(caplog.messages) == (classes > 11)
