import copy
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch_geometric.data import Batch

from ghn_pyg import GHN, PRESETS, GHNConfig, Kept, Prediction, from_module
from ghn_pyg.families.deepnets import DeepNets
from ghn_pyg.models.parameter_decoder import build_decoder
from ghn_pyg.nn.decoders import ConvDecoder, MLPDecoder
from tests.models.ghns import ENCODERS, IMAGES, X, dense, loss_of, make, shape_of, vision
from tests.properties import assert_close
from tests.tracing.helpers import assert_unchanged, network, snapshot, weight

EACH = pytest.mark.parametrize("encoder", ENCODERS)


# --- what is built ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "count"),
    [
        ("ghn3tm8", 6_906_632),
        ("ghn3sm8", 35_810_368),
        ("ghn3lm8", 214_668_960),
        ("ghn3xlm16", 654_365_184),
        ("ghn2", 2_319_720),
        ("ghn1", 2_319_688),
        ("mlp", 2_313_352),
    ],
)
def test_numbers_of_parameters(preset, count):
    with torch.device("meta"):
        ghn = GHN(PRESETS[preset])
    assert sum(parameter.numel() for parameter in ghn.parameters()) == count


def test_parts_by_configuration():
    assert make("ghn1").encoder.virtual_mlp is None
    assert type(build_decoder(make().config).weight) is ConvDecoder
    assert type(build_decoder(make(decoder="mlp").config).weight) is MLPDecoder
    assert make("ghn2").decoder.weight.crop == "corner"
    assert type(make(final_norm=False).norm) is nn.Identity
    assert not make(weight_norm=False).decoder.weight_norm


@pytest.mark.parametrize("config", ["ghn3tm8", {"encoder": "ghn3"}, None])
def test_configurations_of_another_type(config):
    with pytest.raises(TypeError, match=r"GHN expected a GHNConfig \(see GHNConfig.preset\), got"):
        GHN(config)


# --- initialisation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", ["conv", "mlp"])
@EACH
def test_last_layers_start_small_in_ghn3_alone(encoder, decoder):
    ghn = make(encoder, decoder)
    layers = [*ghn.decoder.weight.last_layers(), *ghn.decoder.vector.last_layers()]
    assert len(layers) == 3
    for layer in [*layers, ghn.decoder.vector.classifier]:
        small = encoder == "ghn3" and layer is not ghn.decoder.vector.classifier
        assert layer.bias.any() != small
        size = layer.weight.abs().max().item() * math.sqrt(layer.in_features)
        assert 0.15 < size <= 0.2 if small else 0.8 < size <= 1


@EACH
def test_reset_parameters_draws_other_values(encoder):
    ghn = make(encoder)
    before = copy.deepcopy(ghn.state_dict())
    ghn.reset_parameters()
    same = {name for name, tensor in ghn.state_dict().items() if torch.equal(tensor, before[name])}
    norms = {name for name in before if "norm" in name}
    last = {"decoder.weight.conv.2.bias", "decoder.weight.classifier.bias", "decoder.vector.fc.2.bias"}
    assert same == norms | ({"encoder.spatial.distance.weight", *last} if encoder == "ghn3" else set())


# --- predictions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", ["conv", "mlp"])
@EACH
def test_a_network_its_graph_lists_and_batches(encoder, decoder):
    ghn = make(encoder, decoder)
    models = [vision(), nn.Conv2d(3, 5, 3, bias=False), nn.Sequential(nn.Conv2d(3, 2, 9, padding=4), nn.BatchNorm2d(2))]
    graphs = [from_module(model, IMAGES) for model in models]
    alone = [ghn.predict(graph, seed=3) for graph in graphs]
    assert all(isinstance(one, Prediction) for one in alone)
    for model, one in zip(models, alone, strict=True):
        assert set(one) | set(one.kept) == {name for name, _ in model.named_parameters()}
        assert shape_of(one) == {name: tuple(p.shape) for name, p in model.named_parameters() if name in one}
        assert all(tensor.isfinite().all() and tensor.dtype == torch.float32 for tensor in one.values())
    for networks in (graphs, tuple(graphs), Batch.from_data_list(graphs), [graphs[0], *models[1:]]):
        for one, other in zip(alone, ghn.predict(networks, seed=3), strict=True):
            assert other.kept == one.kept
            torch.testing.assert_close(dict(other), dict(one), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("networks", [[], (), {}, 3, "resnet18", nn.Linear, None])
def test_objects_that_are_no_network(networks):
    message = "networks expected a torch.nn.Module, an ArchData, a non-empty list of them, a Batch or a data set, got "
    empty = "an empty " if networks in ([], ()) else ""
    with pytest.raises(TypeError, match=message + empty + type(networks).__name__):
        make().predict(networks)


def test_a_data_set_is_many_networks():
    split, ghn = DeepNets("val", image_size=16, width=8)[:2], make()
    together, apart = ghn.embed_graphs(split), ghn.embed_graphs([split[0], split[1]])
    assert together.shape == (2, 12)
    assert torch.equal(together, apart)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_total_norm(dtype):
    prediction = make().predict(from_module(vision(), IMAGES), dtype=dtype, differentiable=True)
    numbers = torch.cat([tensor.flatten() for tensor in prediction.values()]).double()
    assert prediction.total_norm() == pytest.approx(numbers.norm().item(), rel=1e-12)
    prediction.clear()
    assert prediction.total_norm() == 0
    prediction.update(a=torch.tensor([[3.0, 0.0]]), b=torch.tensor(-4.0), c=torch.empty(0, 7))
    assert prediction.total_norm() == 5


@EACH
def test_nothing_changes_and_a_second_call_is_identical(encoder):
    ghn, model = make(encoder), vision()
    graph = from_module(model, IMAGES)
    before, of_ghn, of_graph, state = snapshot(model), snapshot(ghn), copy.deepcopy(graph), torch.get_rng_state()
    first, second = ghn.predict(graph, seed=3), ghn.predict(graph, seed=3)
    torch.testing.assert_close(dict(second), dict(first), rtol=0, atol=0)
    assert_unchanged(model, before)
    assert_unchanged(ghn, of_ghn)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    for name in ("node_type", "edge_index", "node_shape", "classifier", "distance"):
        assert torch.equal(graph[name], of_graph[name])
    assert graph.params == of_graph.params
    assert not any(tensor.requires_grad for tensor in first.values())


def test_predictions_share_no_memory():
    ghn, model = make(), vision()
    graph = from_module(model, IMAGES)
    tensors = [*ghn.predict(graph).values(), *ghn.predict(graph).values(), *ghn.initialize(model, graph).parameters()]
    owned = [tensor.untyped_storage().data_ptr() for tensor in (*tensors, *ghn.parameters(), *ghn.buffers())]
    assert len(set(owned)) == len(owned)


def test_kept_and_tied_parameters():
    prediction = make().predict(from_module(dense(), X))
    assert (prediction.kept, prediction.tied) == ({}, {})
    layers = {"a": nn.Linear(5, 5), "b": nn.Linear(5, 5)}
    model = network(lambda self, x: self.b(self.a(x)) * self.scale, **layers, scale=weight(5))
    model.b.weight = model.a.weight
    prediction = make().predict(from_module(model, X))
    assert list(prediction) == ["a.weight", "a.bias", "b.bias"]
    assert prediction.kept == {"scale": Kept.LAYER_SCALE}
    assert prediction.tied == {"b.weight": "a.weight"}


@EACH
def test_the_classifier_may_be_kept(encoder):
    """Its shape is then encoded as if it had the GHN's own 11 classes."""
    ghn = make(encoder)
    few, own = (from_module(vision(classes), IMAGES) for classes in (3, 11))
    embeddings = ghn.embed(own)
    assert torch.equal(ghn.embed(few, keep_classifier=True), embeddings)
    others = (ghn.embed(few) != embeddings).any(1)
    assert others[few.classifier].all()
    assert others[~few.classifier].any() == (encoder != "mlp")
    assert few.node_shape[few.classifier, 0].tolist() == [3, 3]
    result, expected = ghn.predict(few, keep_classifier=True, seed=3), ghn.predict(own, seed=3)
    assert set(expected) - set(result) == {"head.weight", "head.bias"}
    for name in ("head.weight", "head.bias"):
        assert result.kept[name] == "it belongs to the classification layer"
        del expected[name]
    torch.testing.assert_close(dict(result), dict(expected), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions(dtype):
    ghn, graph = make(), from_module(vision(), IMAGES)
    expected = ghn.predict(graph, seed=3)
    for name, tensor in ghn.predict(graph, seed=3, dtype=dtype).items():
        assert torch.equal(tensor, expected[name].to(dtype))
    for name, tensor in ghn.to(dtype).predict(graph, seed=3).items():
        assert tensor.dtype == dtype
        assert_close(tensor.float(), expected[name], 1e-5 if dtype == torch.float64 else 0.05)


@EACH
def test_decoding_under_autocast_is_in_full_precision(encoder):
    ghn, graph = make(encoder), from_module(vision(), IMAGES)
    with torch.autocast("cpu", torch.bfloat16):
        result = ghn.predict(graph, seed=3, differentiable=True)
    for name, expected in ghn.predict(graph, seed=3).items():
        assert result[name].dtype == torch.float32
        assert_close(result[name].detach(), expected, 0.02)
    sum(tensor.sum() for tensor in result.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in ghn.parameters())


# --- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("encoder", "decoder"), [("ghn3", "conv"), ("ghn2", "mlp"), ("ghn1", "conv"), ("mlp", "mlp")])
def test_gradients_equal_finite_differences(encoder, decoder):
    ghn, graph = make(encoder, decoder).double(), from_module(vision(), IMAGES)
    loss = loss_of(ghn.predict(graph, seed=3, differentiable=True))
    assert_close(loss.detach(), loss_of(ghn.predict(graph, seed=3)))
    loss.backward()
    generator = torch.Generator().manual_seed(11)
    for name, parameter in ghn.named_parameters():
        assert parameter.grad.any(), name
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        direction /= direction.norm()
        values, step = [], 1e-6
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(direction, alpha=sign * step)
                values.append(loss_of(ghn.predict(graph, seed=3)))
                parameter.sub_(direction, alpha=sign * step)
        numeric = (values[0] - values[1]).item() / (2 * step)
        assert (parameter.grad * direction).sum().item() == pytest.approx(numeric, rel=1e-5, abs=1e-6), name


class Predictor(nn.Module):
    """Whose forward pass is a differentiable prediction."""

    def __init__(self, ghn):
        super().__init__()
        self.ghn = ghn

    def forward(self, networks):
        return self.ghn.predict(networks, seed=3, differentiable=True)


@EACH
@pytest.mark.parametrize("decoder", ["conv", "mlp"])
def test_gradients_by_transforms_of_functions(encoder, decoder):
    model, graphs = Predictor(make(encoder, decoder).double()), [from_module(vision(), IMAGES), from_module(dense(), X)]

    def loss(parameters):
        return sum(loss_of(prediction) for prediction in functional_call(model, parameters, (graphs,)))

    parameters = dict(model.named_parameters())
    loss(parameters).backward()
    expected = {name: parameter.grad for name, parameter in parameters.items()}
    values = {name: parameter.detach() for name, parameter in parameters.items()}
    assert_close(torch.func.grad(loss)(values), expected)
    total, pull = torch.func.vjp(loss, values)
    assert_close(total, loss(values))
    assert_close(pull(torch.tensor(3.0).double())[0], {name: 3 * gradient for name, gradient in expected.items()})


def test_gradients_inside_no_grad():
    with torch.no_grad():
        prediction = make().predict(from_module(dense(), X), differentiable=True)
        assert not torch.is_grad_enabled()
    assert all(tensor.requires_grad for tensor in prediction.values())


# --- on a GPU --------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@EACH
def test_on_a_gpu(encoder):
    ghn, model = make(encoder).double(), vision()
    graph = from_module(model, IMAGES)
    expected = ghn.predict(graph, seed=3)
    loss_of(ghn.predict(graph, seed=3, differentiable=True)).backward()
    gradients = [parameter.grad.clone() for parameter in ghn.parameters()]
    ghn.zero_grad()
    ghn.cuda()
    for form in (graph, copy.copy(graph).to("cuda"), from_module(vision().cuda(), IMAGES)):
        result = ghn.predict(form, seed=3)
        assert all(tensor.is_cuda for tensor in result.values())
        assert_close({name: tensor.cpu() for name, tensor in result.items()}, dict(expected), 1e-9)
    for model in (vision().double(), vision().double().cuda()):
        one = ghn.initialize(model, graph, seed=3)
        for name, values in expected.items():
            assert_close(one.get_parameter(name).detach().cpu(), values, 1e-9)
    prediction = ghn.predict([graph, graph], seed=3, differentiable=True)[1]
    loss_of({name: tensor.cpu() for name, tensor in prediction.items()}).backward()
    assert_close([parameter.grad.cpu() for parameter in ghn.parameters()], gradients, 1e-8)


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_classes": 10**7, "max_channels": 8192},
        {"max_channels": 8192, "hidden_channels": 1 << 14},
        {"decoder": "mlp", "max_channels": 8192},
    ],
    ids=str,
)
def test_a_ghn_that_is_larger_than_memory(sizes):
    with pytest.raises(MemoryError, match=r"the decoder of .* needs [\d,.]+ GB"):
        GHN(GHNConfig(**sizes))
    with torch.device("meta"):
        assert GHN(GHNConfig(**sizes)).decoder.vector.classifier.weight.is_meta


def test_a_prediction_that_is_larger_than_memory():
    with torch.device("meta"):
        network = nn.Sequential(nn.Linear(5, 1 << 20), nn.ReLU(), nn.Linear(1 << 20, 1 << 20))
    graph = from_module(network, torch.zeros(1, 5, device="meta"))
    with pytest.raises(MemoryError, match=r"the prediction needs 4,[\d.,]+ GB, .*predict_shards"):
        make().predict(graph)
