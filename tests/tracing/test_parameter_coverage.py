import json
from operator import attrgetter

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch

from ghn_pyg import GHN, CoverageError, GHNConfig, coverage, from_module
from ghn_pyg.families.deepnets import DeepNets
from ghn_pyg.tracing import Kept
from tests.tracing.helpers import network, weight

X = torch.zeros(1, 5)
UNUSED = "the forward pass does not use it"


def everything():
    """One parameter of each kind: 7×5 and 3×7 weights, their biases, a norm, a shared layer, two kept ones."""

    def forward(self, x):
        x = self.norm(self.first(x))
        return (x @ self.last + self.again(x)) * self.scale

    model = network(
        forward, first=nn.Linear(5, 7), norm=nn.LayerNorm(7), last=weight(7, 3), again=nn.Linear(7, 3, bias=False),
        scale=weight(1), left=nn.Linear(2, 11),
    )  # fmt: skip
    model.alias = model.first
    return model


def test_each_name_has_one_row():
    report = coverage(everything(), X)
    scale = next(row.why for row in report.rows if row.name == "scale")
    fields = attrgetter("name", "shape", "outcome", "why", "node", "node_type", "tied_to")
    assert [fields(row) for row in report.rows] == [
        ("last", (7, 3), "predicted", "weight of conv, stored (in, out)", "last", "conv", ""),
        ("scale", (1,), "kept", scale, "", "", ""),
        ("first.weight", (7, 5), "predicted", "weight of conv", "first.weight", "conv", ""),
        ("first.bias", (7,), "predicted", "bias", "first.bias", "bias", ""),
        ("norm.weight", (7,), "predicted", "gain of ln", "norm.weight", "ln", ""),
        ("norm.bias", (7,), "predicted", "bias of ln", "norm.weight", "ln", ""),
        ("again.weight", (3, 7), "predicted", "weight of conv", "again.weight", "conv", ""),
        ("left.weight", (11, 2), "kept", UNUSED, "", "", ""),
        ("left.bias", (11,), "kept", UNUSED, "", "", ""),
        ("alias.weight", (7, 5), "predicted", "weight of conv", "first.weight", "conv", "first.weight"),
        ("alias.bias", (7,), "predicted", "bias", "first.bias", "bias", "first.bias"),
    ]  # fmt: skip


def test_figures_count_shared_tensors_once():
    model = everything()
    report = coverage(model, X)
    assert len(report.predicted) + len(report.kept) == len(list(model.parameters())) == 9
    assert report.elements == sum(parameter.numel() for parameter in model.parameters()) == 132
    assert [row.name for row in report.kept] == ["scale", "left.weight", "left.bias"]
    assert report.share == pytest.approx(98 / 132)
    assert report.layer_share == pytest.approx(91 / 124)  # without the bias of a layer, which no norm has
    assert report.nodes == from_module(model, X).num_nodes
    assert repr(report) == "Coverage(6 of 9 tensors predicted, 74.24% of elements)"


def test_what_is_kept_on_purpose_counts_for_neither_layers_nor_weights():
    report = coverage(network(lambda self, x: self.a(x * self.scale), a=nn.Linear(5, 3), scale=weight(2, 5)), X)
    assert [row.why for row in report.kept] == [Kept.LAYER_SCALE]
    assert report.share == pytest.approx(18 / 28)
    assert report.layer_share == 1
    assert report.kept_weights == ()
    report.check()


def test_a_graph_says_the_same_as_its_network():
    model = everything()
    graph = from_module(model, X)
    for report in (coverage(graph), *map(coverage, Batch.from_data_list([graph, graph]).to_data_list())):
        assert sorted(report.rows, key=attrgetter("name")) == sorted(coverage(model, X).rows, key=attrgetter("name"))


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_names_are_those_of_a_wrapped_network(wrap):
    model = wrap(everything())
    assert [row.name for row in coverage(model, X).rows] == [
        n for n, _ in model.named_parameters(remove_duplicate=False)
    ]


def test_tensors_that_are_shared_in_a_layer_that_is_met_twice():
    model = nn.Sequential(nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5)))
    model[0][1].weight = model[0][0].weight
    model.append(model[0])
    report = coverage(model, X)
    assert [row.name for row in report.rows] == [n for n, _ in model.named_parameters(remove_duplicate=False)]
    assert {row.tied_to for row in report.rows} == {"", "0.0.weight", "0.0.bias", "0.1.bias"}
    assert len(report.predicted) == 3


def test_rules_say_how_a_parameter_is_stored():
    model = nn.Sequential(nn.ConvTranspose2d(6, 10, 3, groups=2), nn.BatchNorm2d(10))
    assert [row.why for row in coverage(model, torch.zeros(1, 6, 5, 5)).rows] == [
        "weight of sep_conv, stored (in, out), 2 groups", "bias", "gain of bn", "bias of bn",
    ]  # fmt: skip
    model = network(lambda self, x: torch.einsum("bc,chd->bhd", x, self.w), w=weight(5, 2, 3))
    assert [row.why for row in coverage(model, X).rows] == ["weight of conv, stored (in, out, out)"]


# --- tables ----------------------------------------------------------------------------------------------------------


def test_the_table_groups_parameters_by_outcome_and_size():
    columns = coverage(everything(), X).table().columns
    rows = list(zip(*([str(cell) for cell in columns[index].cells] for index in (0, 1, 3, 5)), strict=True))
    assert rows[:3] == [
        ("predicted", "weight of conv", "56", "first.weight, again.weight"),
        ("predicted", "weight of conv, stored (in, out)", "21", "last"),
        ("predicted", "bias", "7", "first.bias"),
    ]
    assert [(outcome, elements) for outcome, _, elements, _ in rows[-2:]] == [("kept", "33"), ("kept", "1")]


def test_text():
    lines = [" ".join(line.split()) for line in str(coverage(everything(), X)).splitlines()]
    assert "predicted weight of conv 2 56 42.42% first.weight, again.weight" in lines
    assert "kept the forward pass does not use it 2 33 25.00% left.weight, left.bias" in lines
    assert lines[-4:] == [
        "tensors: 6 of 9 predicted",
        "elements: 98 of 132 predicted, 74.24%",
        "layers: 73.38% of weight matrices, convolutions, norms and embeddings predicted",
        "tied: 2 further names of shared tensors: alias.weight, alias.bias",
    ]


def test_the_full_table_has_all_names():
    table = coverage(everything(), X).table(full=True)
    names = list(table.columns[0].cells)
    assert [str(name) for name in names] == [row.name for row in coverage(everything(), X).rows]
    assert str(list(table.columns[4].cells)[-1]) == "bias, tied to first.bias"


def test_plain_values():
    plain = coverage(everything(), X).to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert {name: plain[name] for name in ("tensors", "tensors_predicted", "elements", "elements_predicted")} == {
        "tensors": 9, "tensors_predicted": 6, "elements": 132, "elements_predicted": 98,
    }  # fmt: skip
    assert plain["rows"][-1] == {
        "name": "alias.bias", "shape": "7", "elements": 7, "outcome": "predicted", "why": "bias", "node": "first.bias",
        "node_type": "bias", "tied_to": "first.bias",
    }  # fmt: skip


# --- strict ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ghn():
    torch.manual_seed(3)
    return GHN(GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2))


def test_check_names_weights_reasons_and_what_to_do():
    model = network(lambda self, x: self.used(x), used=nn.Linear(5, 3), **{f"w{i}": weight(2, 3) for i in range(7)})
    with pytest.raises(CoverageError) as caught:
        coverage(model, X).check()
    message = str(caught.value)
    assert message.startswith(f"7 weight matrices are not predicted. w0 (2×3): {UNUSED}; w1 (2×3): ")
    assert f"w4 (2×3): {UNUSED}; and 2 more. " in message
    assert "register_layer" in message
    assert "example_inputs" in message


@pytest.mark.parametrize(("shape", "complains"), [((2, 3), True), ((1, 3), False), ((1, 2, 1, 3), True), ((7,), False)])
def test_weight_matrices_have_two_dimensions(shape, complains):
    report = coverage(network(lambda self, x: self.used(x), used=nn.Linear(5, 3), left=weight(*shape)), X)
    assert bool(report.kept_weights) == complains


def test_strict_changes_nothing_where_a_weight_is_kept(ghn):
    model = everything()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = from_module(model, X)
    with pytest.raises(CoverageError, match=r"^1 weight matrix is not predicted\. left\.weight \(11×2\)"):
        ghn.initialize(model, graph, strict=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(CoverageError, match=r"left\.weight"):
        ghn.predict(graph, strict=True)
    ghn.initialize(model, graph)
    assert not torch.equal(model.last, before["last"])


def test_strict_in_place(ghn):
    layer = nn.Sequential(nn.Conv2d(3, 7, 3))
    assert ghn(layer, strict=True, seed=0) is layer
    layer.left = nn.Parameter(torch.zeros(2, 3))
    with pytest.raises(CoverageError, match=r"left \(2×3\)"):
        ghn(layer, strict=True)


def test_strict_says_which_network_of_several(ghn):
    whole = from_module(nn.Linear(5, 3), X)
    assert len(ghn.predict([whole, whole], strict=True)) == 2
    with pytest.raises(CoverageError, match=r"^network 1 of 2: 1 weight matrix"):
        ghn.predict([whole, from_module(everything(), X)], strict=True)


def test_graphs_of_training_architectures():
    graphs = list(DeepNets("test", width=8)[:7])
    assert any(graph.kept for graph in graphs)
    for graph in graphs:
        assert coverage(graph).to_dict()["tensors"] == sum(map(len, graph.params)) + len(graph.kept)


def test_errors():
    graph = from_module(everything(), X)
    with pytest.raises(TypeError, match="coverage takes example_inputs with a network"):
        coverage(graph, X)
    with pytest.raises(ValueError, match="got a batch"):
        coverage(Batch.from_data_list([graph, graph]))
    graph.kept_shape_items = ()
    with pytest.raises(ValueError, match="does not have the shape of scale, which is kept; rebuild it"):
        coverage(graph)
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module, got str"):
        coverage("resnet18")


def test_a_single_number_is_no_layer():
    model = network(lambda self, x: (self.a(x), self.scale.exp()), a=nn.Linear(5, 7), scale=weight(1))
    report = coverage(model, torch.rand(2, 5))
    assert [row.name for row in report.kept] == ["scale"]
    assert report.layer_share == 1
    report.check()
