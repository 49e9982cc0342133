import copy
import io
import pickle

import networkx as nx
import pytest
import torch
import torch_geometric.utils
from torch import nn
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader

from ghn_pyg import ArchData, ParamSpec, from_module
from tests.tracing.helpers import network, weight

X = torch.rand(2, 5)


def graphs():
    """Three graphs of 3, 7 and 2 nodes."""

    def forward(self, x):
        x = self.a(x)
        return self.c(x + self.b(x)) * self.scale

    wide = network(forward, a=nn.Linear(5, 7), b=nn.Linear(7, 7), c=nn.Linear(7, 3, bias=False), scale=weight(1))
    wide.tied = wide.a
    return [
        from_module(nn.Linear(5, 3), X),
        from_module(wide, X),
        from_module(nn.Linear(5, 11, bias=False), X),
    ]


FIELDS = ("node_type", "edge_index", "node_shape", "classifier", "distance")


def assert_same(first, second):
    assert type(first) is type(second)
    for name in FIELDS:
        assert torch.equal(first[name], second[name]), name
        assert first[name].dtype == second[name].dtype
    for name in ("params", "node_names", "kept", "tied", "num_nodes"):
        assert getattr(first, name) == getattr(second, name), name


# --- batches ---------------------------------------------------------------------------------------------------------


def test_a_batch_of_unequal_graphs():
    parts = graphs()
    batch = Batch.from_data_list(parts)
    assert batch.num_graphs == 3
    assert batch.num_nodes == 12
    assert isinstance(batch, ArchData)
    assert batch.ptr.tolist() == [0, 3, 10, 12]
    assert batch.graph_sizes == [3, 7, 2]
    assert batch.batch.tolist() == [0] * 3 + [1] * 7 + [2] * 2
    assert sorted(batch.edge_index.t().tolist()) == [
        [0, 1], [1, 2], [3, 4], [4, 5], [5, 6], [5, 8], [6, 7], [7, 8], [8, 9], [10, 11],
    ]  # fmt: skip
    assert batch.node_type.tolist() == [kind for part in parts for kind in part.node_type.tolist()]
    assert batch.node_shape.shape == (12, 4)
    assert batch.distance.shape == (9 + 49 + 4,)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2)])
def test_kept_and_tied_parameters_of_a_batch(order):
    parts = [graphs()[position] for position in order]
    batch = Batch.from_data_list(parts)
    assert list(parts[order.index(1)].kept) == ["scale"]
    assert list(parts[order.index(1)].tied) == ["tied.weight", "tied.bias"]
    assert batch.kept == [part.kept for part in parts]
    assert batch.tied == [part.tied for part in parts]
    assert [part.kept for part in batch.to_data_list()] == [part.kept for part in parts]
    assert [part.tied for part in batch.to_data_list()] == [part.tied for part in parts]


def test_names_of_a_batch():
    parts = graphs()
    batch = Batch.from_data_list(parts)
    assert batch.node_types == [part.node_types for part in parts]
    assert batch.node_types[0] == ["input", "conv", "bias"]
    assert batch.node_types[1] == ["input", "conv", "bias", "conv", "bias", "sum", "conv"]
    assert batch.param_names == [part.param_names for part in parts]
    assert batch.param_names[0] == [[], ["weight"], ["bias"]]
    assert batch.node_names == [part.node_names for part in parts]


def test_the_distances_of_a_batch_are_block_diagonal():
    parts = graphs()
    matrix = Batch.from_data_list(parts).distances()
    assert matrix.shape == (12, 12)
    assert matrix.dtype == torch.long
    expected = torch.block_diag(*(part.distances() for part in parts))
    assert torch.equal(matrix, expected)


def test_graphs_come_back_out_of_a_batch():
    parts = graphs()
    batch = Batch.from_data_list(parts)
    for part, back in zip(parts, batch.to_data_list(), strict=True):
        assert_same(part, back)
    assert_same(parts[1], batch[1])
    assert_same(parts[0], batch.get_example(0))


def test_a_data_loader():
    parts = graphs()
    first, second = list(DataLoader(parts, batch_size=2))
    assert first.graph_sizes == [3, 7]
    assert second.graph_sizes == [2]
    assert_same(parts[1], first[1])
    assert torch.equal(second.distances(), parts[2].distances())


def test_batching_changes_no_graph():
    parts = graphs()
    copies = [copy.deepcopy(part) for part in parts]
    Batch.from_data_list(parts).to_data_list()
    for part, other in zip(parts, copies, strict=True):
        assert_same(part, other)


# --- copies ----------------------------------------------------------------------------------------------------------


def saved(graph):
    file = io.BytesIO()
    torch.save(graph, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "pickle": lambda graph: pickle.loads(pickle.dumps(graph)),  # noqa: S301
    "torch.save": saved,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "clone": lambda graph: graph.clone(),
    "cpu": lambda graph: graph.to("cpu"),
    "dictionary": lambda graph: ArchData.from_dict(graph.to_dict()),
}


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
def test_copies(duplicate):
    for part in graphs():
        assert_same(duplicate(part), part)


@pytest.mark.parametrize("duplicate", [COPIES["pickle"], saved, copy.deepcopy], ids=["pickle", "save", "deepcopy"])
def test_copies_of_a_batch(duplicate):
    parts = graphs()
    batch = duplicate(Batch.from_data_list(parts))
    assert batch.graph_sizes == [3, 7, 2]
    assert_same(batch[1], parts[1])


def test_moving_to_another_device():
    part = graphs()[1]
    moved = copy.copy(part).to("meta")
    assert all(moved[name].is_meta for name in FIELDS)
    assert moved.param_names == part.param_names
    assert not any(part[name].is_meta for name in FIELDS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_moving_to_the_gpu_and_back():
    part = graphs()[1]
    batch = Batch.from_data_list([part, part]).to("cuda")
    assert batch.distances().is_cuda
    assert_same(batch.cpu()[1], part)


def test_types_and_positions_are_not_offset_by_batching():
    # PyTorch Geometric adds the number of nodes to attributes whose name contains "index".
    offset = [name for name in graphs()[0].to_dict() if "index" in name or name == "face"]
    assert offset == ["edge_index"]


# --- networkx --------------------------------------------------------------------------------------------------------


def test_a_networkx_view():
    view = graphs()[1].to_networkx()
    assert isinstance(view, nx.DiGraph)
    assert list(view.nodes) == list(range(7))
    assert sorted(view.edges) == [(0, 1), (1, 2), (2, 3), (2, 5), (3, 4), (4, 5), (5, 6)]
    assert view.nodes[0] == {"type": "input", "name": "input", "params": [], "shape": None}
    assert view.nodes[3] == {"type": "conv", "name": "b.weight", "params": ["b.weight"], "shape": (7, 7, 1, 1)}
    assert view.nodes[5] == {"type": "sum", "name": "sum", "params": [], "shape": None}
    assert nx.is_directed_acyclic_graph(view)


def test_pools_show_their_kernel_in_the_networkx_view():
    graph = from_module(nn.Sequential(nn.Conv2d(3, 5, 1), nn.MaxPool2d((2, 3))), torch.rand(2, 3, 11, 13))
    assert graph.to_networkx().nodes[3]["shape"] == (1, 1, 2, 3)


def test_a_batch_has_no_networkx_view():
    batch = Batch.from_data_list(graphs())
    with pytest.raises(ValueError, match="expected one graph, got a batch; call it on each of"):
        batch.to_networkx()


def test_the_conversion_of_pytorch_geometric():
    part = graphs()[1]
    view = torch_geometric.utils.to_networkx(part, node_attrs=["node_type", "classifier"])
    assert sorted(view.edges) == sorted(part.to_networkx().edges)
    assert view.nodes[0]["node_type"] == 9
    assert view.nodes[6]["classifier"] is True
    assert sorted(torch_geometric.utils.to_networkx(part).edges) == sorted(view.edges)


# --- the shapes of parameters ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        ((64, 3, 7, 5), {}, (64, 3, 7, 5)),
        ((64, 3, 7), {}, (64, 3, 7, 1)),
        ((64, 3, 2, 7, 5), {}, (64, 3, 7, 5)),
        ((64, 3), {}, (64, 3, 1, 1)),
        ((64,), {}, (64, 1, 1, 1)),
        ((), {}, (1, 1, 1, 1)),
        ((3, 64), {"layout": "in_out"}, (64, 3, 1, 1)),
        ((6, 11, 7, 5), {"layout": "in_out"}, (11, 6, 7, 5)),
        ((6, 11, 7, 5), {"layout": "in_out", "groups": 2}, (22, 3, 7, 5)),
        ((1, 197, 768), {"role": "position"}, (1, 768, 14, 14)),
        ((50, 768), {"role": "position"}, (1, 768, 7, 7)),
        ((1, 31, 14, 13), {"role": "position"}, (1, 31, 14, 13)),
        ((30522, 31), {"role": "position"}, (1, 31, 174, 174)),
    ],
)
def test_the_shape_that_the_encoding_sees(shape, options, expected):
    spec = ParamSpec("name", shape, **{"role": "weight", **options})
    assert spec.node_shape() == expected


def test_parameters_are_values():
    spec = ParamSpec("name", (3,), "bias")
    assert spec == ParamSpec("name", (3,), "bias")
    assert len({spec, ParamSpec("name", (3,), "bias")}) == 1
    with pytest.raises(AttributeError):
        spec.name = "other"
