"""Example inputs and outputs that are objects: their tensors are the input, and the objects stay as they are."""

import collections
import dataclasses
import types

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.nn import SAGEConv, global_mean_pool
from transformers import BatchEncoding

from ghn_pyg import GHN, GHNConfig, coverage, from_module
from ghn_pyg.utils.nested_tensors import tensors_inside
from tests.tracing.helpers import network, sources

X = torch.rand(2, 5)
EDGES = torch.tensor([[0, 1, 2], [1, 2, 0]])
NAMES = ["input", "a.weight", "a.bias"]


@dataclasses.dataclass(frozen=True)
class Sample:
    x: torch.Tensor
    name: str = "first"


class Plain:
    def __init__(self, x):
        self.x = x


Pair = collections.namedtuple("Pair", ["x", "name"])


def linear(forward):
    return network(forward, a=nn.Linear(5, 7))


OBJECTS = {
    "data": Data(x=X), "batch": Batch.from_data_list([Data(x=X), Data(x=X)]), "dataclass": Sample(X),
    "plain object": Plain(X), "namespace": types.SimpleNamespace(x=X), "named tuple": Pair(X, "first"),
}  # fmt: skip


@pytest.mark.parametrize("value", OBJECTS.values(), ids=OBJECTS)
def test_an_object_is_an_input_in_any_place(value):
    for forward, inputs in (
        (lambda self, sample: self.a(sample.x), value),
        (lambda self, sample: self.a(sample.x), (value,)),
        (lambda self, *, sample: self.a(sample.x), {"sample": value}),
        (lambda self, samples: self.a(samples["one"][0].x), ({"one": [value]},)),
    ):
        graph = from_module(linear(forward), inputs)
        assert graph.node_names == NAMES
        assert sources(graph)["a.weight"] == ["input"]
    # Beside a tensor it is an input too, not a constant.
    joined = network(lambda self, y, sample: self.a(y) + self.b(sample.x), a=nn.Linear(5, 7), b=nn.Linear(5, 7))
    assert sources(from_module(joined, (value.x, value)))["b.weight"] == ["input"]


MAPPINGS = {
    "dictionary": {"x": X}, "ordered": collections.OrderedDict(x=X), "default": collections.defaultdict(list, x=X),
    "user dictionary": collections.UserDict(x=X), "chain": collections.ChainMap({}, {"x": X}),
    "encoding": BatchEncoding({"x": X}), "read-only": types.MappingProxyType({"x": X}),
}  # fmt: skip


@pytest.mark.parametrize("value", MAPPINGS.values(), ids=MAPPINGS)
def test_a_mapping_is_an_argument_or_holds_them(value):
    assert from_module(linear(lambda self, batch: self.a(batch["x"])), (value,)).node_names == NAMES
    assert from_module(linear(lambda self, *, x: self.a(x)), value).node_names == NAMES


def test_coverage_and_ghn_take_the_same_inputs():
    sample = Data(x=torch.rand(3, 5), edge_index=EDGES)
    model = network(lambda self, data: self.b(self.a(data.x, data.edge_index)), a=SAGEConv(5, 7), b=nn.Linear(7, 2))
    assert coverage(model, sample).share == 1
    ghn = GHN(GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2))
    expected = ghn.predict(from_module(model, sample))
    ghn(model, sample)
    assert all(torch.equal(parameter, expected[name]) for name, parameter in model.named_parameters())


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
def test_lazy_layers_of_a_network_that_takes_an_object():
    model = network(lambda self, data: self.b(self.a(data.x, data.edge_index)), a=SAGEConv(-1, 7), b=nn.LazyLinear(2))
    sample = Data(x=torch.rand(3, 5), edge_index=EDGES)
    GHN(GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2))(model, sample)
    assert model.a.lin_l.weight.shape == (7, 5)


def test_integers_in_an_object_keep_their_values():
    def forward(self, data):
        assert data.edge_index.max() == 5
        assert data.num_graphs == 2
        hidden = F.relu(self.a(data.x, data.edge_index))
        return self.b(global_mean_pool(hidden, data.batch, size=int(data.batch.max()) + 1))

    sample = Data(x=torch.rand(3, 5), edge_index=EDGES)
    model = network(forward, a=SAGEConv(5, 7), b=nn.Linear(7, 2))
    graph = from_module(model, Batch.from_data_list([sample, sample]))
    assert graph.kept == {}
    assert sources(graph)["a.lin_l.weight"] == ["input"]


def test_heterogeneous_data():
    data = HeteroData()
    data["author"].x, data["paper"].x = torch.rand(3, 5), torch.rand(2, 3)
    model = network(
        lambda self, data: self.a(data.x_dict["author"]) + self.b(data["paper"].x.mean(0)), a=nn.Linear(5, 7),
        b=nn.Linear(3, 7),
    )  # fmt: skip
    assert sources(from_module(model, data))["b.weight"] == ["input"]


def test_objects_are_not_changed():
    class Cache:
        pass

    def forward(self, data, cache, names):
        data.x = data.x.mul_(0)
        data.hidden = cache.hidden = self.a(data.x)
        data.edge_index.add_(1)
        names.append("a")
        return data.hidden

    data, cache, names = Data(x=X.clone(), edge_index=EDGES.clone()), Cache(), []
    before = [(id(tensor), tensor.clone()) for tensor in tensors_inside(data)]
    assert from_module(linear(forward), (data, cache, names)).node_names == NAMES
    assert sorted(data.keys()) == ["edge_index", "x"]
    assert vars(cache) == {}
    assert names == []
    for tensor, (identity, values) in zip(tensors_inside(data), before, strict=True):
        assert id(tensor) == identity
        assert torch.equal(tensor, values)


def test_an_object_that_refers_to_itself():
    sample = Plain(X)
    sample.parts = [sample]
    assert from_module(linear(lambda self, sample: self.a(sample.parts[0].x)), sample).node_names == NAMES


def test_packed_sequences_are_one_argument():
    packed = nn.utils.rnn.pack_sequence([torch.rand(3, 5), torch.rand(2, 5)])
    assert from_module(nn.LSTM(5, 7), packed).kept == {}


def test_arguments_without_data_are_shared():
    given = (torch.Generator(), nn.Linear(2, 3), torch.relu)

    def forward(self, x, *others):
        assert all(one is other for one, other in zip(others, given, strict=True))
        return self.a(x)

    assert from_module(linear(forward), (X, *given)).node_names == NAMES


def test_objects_without_a_tensor():
    for inputs in (Plain(3), (Data(),), {"sample": Plain([3])}, nn.Linear(5, 7)):
        with pytest.raises(TypeError, match="or objects that hold tensors, with at least one tensor"):
            from_module(nn.Linear(5, 7), inputs)


OUTPUTS = {
    "data": lambda y: Data(y=y), "dataclass": lambda y: Sample(y), "plain object": lambda y: Plain([y]),
    "user dictionary": lambda y: collections.UserDict(y=y), "nested": lambda y: {"all": [Plain({"y": y})]},
    "distribution": lambda y: torch.distributions.Independent(torch.distributions.Normal(y, 1.0), 1),
}  # fmt: skip


@pytest.mark.parametrize("hold", OUTPUTS.values(), ids=OUTPUTS)
def test_the_main_output_is_found_in_an_object(hold):
    graph = from_module(linear(lambda self, x: hold(self.a(x))), X)
    assert graph.node_names == NAMES
    assert graph.classifier.tolist() == [False, True, True]
