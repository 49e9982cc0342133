"""Faults of the published GHN code that must not come back: in graphs and predictions."""

import networkx as nx
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch_geometric.data import Batch

from ghn_pyg import from_module
from tests.golden import seeded_ghn
from tests.models.ghns import make
from tests.tracing.helpers import assert_unchanged, kinds, network, snapshot, sources, weight

X = torch.rand(2, 5)
MAP = torch.rand(2, 3, 11, 13)


@pytest.fixture(params=["ghn3", "ghn2"])
def ghn(request):
    return make(request.param)


def convolutional(head=7):
    return nn.Sequential(
        nn.Conv2d(3, 13, 3), nn.BatchNorm2d(13), nn.ReLU(), nn.Conv2d(13, 17, 3, groups=1), nn.GroupNorm(1, 17),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(17, head),
    )  # fmt: skip


# --- batches of unequal graphs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["T", "G2"])
def test_a_batch_of_unequal_graphs_is_decoded_as_each_alone(name):
    graphs = [
        from_module(nn.Linear(5, 11), X),
        from_module(convolutional(), MAP),
        from_module(nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 2)), X),
        from_module(torchvision.models.squeezenet1_1()),
    ]
    model = seeded_ghn(name)
    alone = [model.predict(graph) for graph in graphs]
    for together in (model.predict(graphs), model.predict(Batch.from_data_list(graphs))):
        for one, other in zip(alone, together, strict=True):
            assert one.keys() == other.keys()
            for key, value in one.items():
                torch.testing.assert_close(other[key], value, rtol=1e-5, atol=1e-6)
    turned = model.predict(graphs[::-1])[::-1]
    for one, other in zip(alone, turned, strict=True):
        torch.testing.assert_close(dict(other), dict(one), rtol=1e-5, atol=1e-6)


def test_graphs_with_and_without_kept_parameters_share_a_batch(ghn):
    kept = network(lambda self, x: self.a(x) * self.scale, a=nn.Linear(5, 7), scale=weight(7))
    graphs = [from_module(kept, X), from_module(nn.Linear(5, 3), X)]
    assert [list(prediction.kept) for prediction in ghn.predict(graphs)] == [["scale"], []]
    assert [list(prediction.kept) for prediction in ghn.predict(graphs[::-1])] == [[], ["scale"]]


# --- distances are not modified ---------------------------------------------------------------------------------------


def test_queries_leave_the_virtual_edges():
    graph = from_module(convolutional(), MAP)
    before = graph.distance.clone()
    assert (before > 1).any()
    for query in (graph.distances, graph.to_networkx, graph.__repr__, lambda: graph.param_names, graph.to_dict):
        query()
        assert torch.equal(graph.distance, before)


# --- no state on the network ------------------------------------------------------------------------------------------


def test_no_state_on_the_network(ghn):
    model = convolutional()
    before = snapshot(model)
    first, second = ghn.predict(model), ghn.predict(model)
    assert_unchanged(model, before)
    assert len(first) == 10
    torch.testing.assert_close(dict(second), dict(first), rtol=0, atol=0)
    attributes = {path: set(vars(module)) for path, module in model.named_modules()}
    ghn(model)
    assert {path: set(vars(module)) for path, module in model.named_modules()} == attributes


def test_a_second_prediction_predicts_all_again(ghn):
    model = convolutional()
    ghn(model)
    expected = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        nn.init.constant_(parameter, 3)
    ghn(model)
    torch.testing.assert_close(dict(model.named_parameters()), expected, rtol=0, atol=0)


def test_a_replaced_head_is_predicted(ghn):
    model = convolutional()
    ghn(model)
    model[7] = nn.Sequential(nn.Linear(17, 5), nn.Linear(5, 2))
    nn.init.constant_(model[7][1].weight, 3)
    ghn(model)
    assert (model[7][1].weight != 3).all()
    assert ghn.predict(model)["7.0.weight"].shape == (5, 17)


# --- every layer is recognised, every parameter has an outcome --------------------------------------------------------


class MulConv(nn.Conv2d):
    pass


class AddConv(nn.Conv2d):
    pass


class CatConv(nn.Conv2d):
    def forward(self, x):
        return super().forward(x)


class StandardConv(nn.Conv2d):
    """Standardises its weight."""

    def forward(self, x):
        centred = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, centred / centred.std((1, 2, 3), keepdim=True), self.bias)


class ChannelNorm(nn.LayerNorm):
    """A layer norm of channels, with an activation."""

    def forward(self, x):
        return F.relu(
            F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        ).permute(0, 3, 1, 2)


class NormAct(nn.BatchNorm2d):
    """A batch norm that calls the function itself, with an activation."""

    def forward(self, x):
        out = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1, self.eps)
        return F.relu(out)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (MulConv(3, 3, 5), ["conv", "bias"]),
        (AddConv(3, 3, 5), ["conv", "bias"]),
        (CatConv(3, 3, 5), ["conv", "bias"]),
        (StandardConv(3, 3, 5), ["conv", "bias"]),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 5)), ["conv", "bias"]),
        (nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 3, 5)), ["conv", "bias"]),
        (ChannelNorm(3), ["ln"]),
        (NormAct(3), ["bn"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_subclasses_and_parametrised_layers(ghn, layer, expected):
    model = nn.Sequential(layer, nn.Conv2d(3, 7, 1))
    graph = from_module(model, MAP)
    assert kinds(graph) == ["input", *expected, "conv", "bias"]
    ghn.initialize(model, graph)
    assert model(MAP).isfinite().all()


EVERY_LAYER = {
    "Conv1d": (nn.Conv1d(3, 5, 3), (2, 3, 11)),
    "Conv3d": (nn.Conv3d(3, 5, 3), (2, 3, 7, 11, 5)),
    "BatchNorm1d": (nn.BatchNorm1d(5), (2, 5)),
    "BatchNorm3d": (nn.BatchNorm3d(3), (2, 3, 7, 11, 5)),
    "GroupNorm": (nn.GroupNorm(3, 6), (2, 6, 7)),
    "InstanceNorm": (nn.InstanceNorm2d(3, affine=True), (2, 3, 7, 11)),
    "RMSNorm": (nn.RMSNorm(5), (2, 5)),
    "ConvTranspose1d": (nn.ConvTranspose1d(3, 5, 3), (2, 3, 7)),
    "ConvTranspose2d": (nn.ConvTranspose2d(6, 10, 3, groups=2), (2, 6, 7, 11)),
    "PReLU": (nn.PReLU(5), (2, 5)),
    "frozen": (nn.Linear(5, 7).requires_grad_(False), (2, 5)),
    "Bilinear": (network(lambda self, x: self.a(x, x), a=nn.Bilinear(5, 5, 7)), (2, 5)),
    "LSTM": (nn.LSTM(5, 7), (2, 3, 5)),
}


@pytest.mark.parametrize(("layer", "shape"), EVERY_LAYER.values(), ids=EVERY_LAYER)
def test_no_parameter_is_dropped_silently(ghn, layer, shape):
    graph = from_module(layer, torch.rand(shape))
    prediction = ghn.predict(graph)
    parameters = dict(layer.named_parameters())
    assert set(prediction) | set(graph.kept) == set(parameters)
    assert not set(prediction) & set(graph.kept)
    assert {name: tensor.shape for name, tensor in prediction.items()} == {
        name: parameters[name].shape for name in prediction
    }
    assert list(graph.kept) == (["weight"] if isinstance(layer, nn.PReLU) else [])


# --- graphs are complete ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "layers", "last"), [("swin_v2_t", 12, "head.bias"), ("maxvit_t", 22, "classifier.5.weight")]
)
def test_graphs_are_acyclic_and_complete_and_end_in_the_classifier(architecture, layers, last):
    with torch.device("meta"):
        model = torchvision.models.get_model(architecture)
    graph = from_module(model)
    view = graph.to_networkx()
    assert nx.is_directed_acyclic_graph(view)
    assert (graph.edge_index[0] < graph.edge_index[1]).all()
    roots = {0, *(node for node, kind in view.nodes(data="type") if kind == "pos_enc")}
    reached = roots.union(*(nx.descendants(view, root) for root in roots))
    assert reached == set(view.nodes)
    assert nx.ancestors(view, len(view) - 1) == set(view.nodes) - {len(view) - 1}
    assert kinds(graph).count("msa") == layers
    assert graph.node_names[-1] == last
    assert graph.classifier[-1]
    assert sources(graph)["head.weight" if last == "head.bias" else last] != ["input"]
    predicted = {name for names in graph.param_names for name in names}
    assert predicted | set(graph.kept) == {name for name, _ in model.named_parameters()}


# --- stored layouts and long distances --------------------------------------------------------------------------------


class Conv1D(nn.Module):
    """A linear layer that stores its weight as (in, out)."""

    def __init__(self, out, into):
        super().__init__()
        self.weight = weight(into, out)
        self.bias = weight(out)

    def forward(self, x):
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.shape[:-1], -1)


def test_a_weight_that_is_stored_the_other_way_round_has_the_same_fan_in(ghn):
    usual = nn.Sequential(nn.Linear(5, 23), nn.ReLU(), nn.Linear(23, 3), nn.Linear(3, 2))
    turned = nn.Sequential(Conv1D(23, 5), nn.ReLU(), Conv1D(3, 23), nn.Linear(3, 2))
    expected, came = ghn.predict(from_module(usual, X)), ghn.predict(from_module(turned, X))
    assert came["0.weight"].shape == (5, 23)
    for name, value in expected.items():
        other = came[name].t() if name in ("0.weight", "2.weight") else came[name]
        torch.testing.assert_close(other, value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("cutoff", [254, 255, 1000])
def test_distances_of_255_and_more(ghn, cutoff):
    model = nn.Sequential(*(nn.Linear(5, 5, bias=False) for _ in range(300)))
    graph = from_module(model, X, cutoff=cutoff)
    assert graph.distances()[0].tolist() == [step if step <= cutoff else 0 for step in range(301)]
    prediction = ghn.predict(graph)
    assert len(prediction) == 300
    assert all(tensor.isfinite().all() for tensor in prediction.values())
