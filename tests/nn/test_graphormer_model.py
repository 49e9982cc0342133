import pytest
import torch
from torch_geometric.data import Batch, Data, HeteroData

from ghn_pyg.nn import Graphormer
from ghn_pyg.transforms import AddShortestPathDistance, AddShortestPathEdges
from tests.properties import assert_close
from tests.textbook import reference_norm


def graph(nodes=7, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randint(nodes, (2, 2 * nodes), generator=generator)
    edges = torch.cat((edges, edges.flip(0)), 1)
    x = torch.randn(nodes, 5, generator=generator, dtype=torch.float64).to(dtype)
    attr = torch.randn(edges.size(1), 3, generator=generator, dtype=torch.float64).to(dtype)
    return AddShortestPathEdges(3)(AddShortestPathDistance()(Data(x=x, edge_index=edges, edge_attr=attr)))


def model(**options):
    torch.manual_seed(3)
    sizes = {"in_channels": 5, "edge_channels": 3, "channels": 12, "layers": 2, "heads": 3, "out_channels": 2}
    return Graphormer(**{**sizes, **options}).double().eval()


def reference(model, data):
    """One graph by the formulas of the paper, node by node and pair by pair."""
    nodes, heads = len(data.x), 3
    x = data.x @ model.nodes.weight.T + model.nodes.bias
    degree = [[int((ends == node).sum()) for node in range(nodes)] for ends in data.edge_index]
    x = x + model.centrality.out_degree.weight[degree[0]] + model.centrality.in_degree.weight[degree[1]]
    x = torch.cat((model.token.embedding, x))
    features = data.edge_attr @ model.edges.weight.T + model.edges.bias
    weights = model.paths.hops.weight.view(-1, heads, heads)
    bias = model.token.bias[:, None, None].expand(-1, nodes + 1, nodes + 1).clone()
    for u in range(nodes):
        for v in range(nodes):
            away = int(data.distance[u * nodes + v])
            number = model.spatial.bias.weight[len(model.spatial.bias.weight) - 1 if u != v and not away else away]
            path = [edge for edge in data.path_edges[u * nodes + v].tolist() if edge >= 0]
            along = sum((weights[hop] @ features[edge] for hop, edge in enumerate(path)), torch.zeros(heads).double())
            bias[:, u + 1, v + 1] = number + along / max(1, len(path))
    for layer in model.layers:
        normed = reference_norm(layer.norm1, x)
        q, k, v = (part.view(nodes + 1, heads, 4) for part in layer.qkv(normed).split(12, dim=1))
        attention = (torch.einsum("ihc,jhc->hij", q, k) / 2 + bias).softmax(-1)
        x = x + layer.out(torch.einsum("hij,jhc->ihc", attention, v).reshape(nodes + 1, 12))
        x = x + layer.ff(reference_norm(layer.norm2, x))
    return reference_norm(model.norm, x)


def test_the_formulas_of_the_paper():
    one, data = model(), [graph(7), graph(11, 1), graph(2, 2)]
    expected = torch.cat([one.head(reference(one, part)[:1]) for part in data])
    assert_close(one(Batch.from_data_list(data)), expected, 1e-9)
    nodes = model(level="node")
    nodes.load_state_dict(one.state_dict())
    expected = torch.cat([one.head(reference(one, part)[1:]) for part in data])
    assert_close(nodes(Batch.from_data_list(data)), expected, 1e-9)


@pytest.mark.parametrize(("level", "rows"), [("graph", 2), ("node", 18), ("edge", 72)])
@pytest.mark.parametrize("readout", ["token", "mean"])
def test_results_of_graphs_nodes_and_edges(level, rows, readout):
    one, data = model(level=level, readout=readout), [graph(7), graph(11, 1)]
    found = one(Batch.from_data_list(data))
    assert found.shape == (rows, 2)
    assert_close(found, torch.cat([one(part) for part in data]), 1e-9)


@pytest.mark.parametrize("name", ["distance", "path_edges", "edge_attr"])
def test_what_is_missing_is_named(name):
    data = graph()
    del data[name]
    with pytest.raises(ValueError, match=name):
        model()(data)


def test_graphs_without_nodes_at_the_end():
    empty = AddShortestPathDistance()(Data(x=torch.zeros(0, 5).double(), edge_index=torch.zeros(2, 0).long()))
    one, data = model(edge_channels=None), graph()
    del data.edge_attr, data.path_edges
    assert one(Batch.from_data_list([data, empty, empty])).shape == (3, 2)


def test_categories():
    data = graph()
    data.x, data.edge_attr = torch.arange(14).view(7, 2), torch.arange(28) % 5
    one = model(in_channels=None, node_types=14, edge_channels=None, edge_types=5)
    assert one(data).isfinite().all()
    with pytest.raises(ValueError, match="types expected integers"):
        one(graph())
    with pytest.raises(ValueError, match="expected either node_channels or node_types"):
        Graphormer()


def test_distances_of_other_edges_are_refused():
    data = graph()
    ends = data.edge_index.sort(0).values
    data.edge_index = data.edge_index[:, (ends != ends[:, :1]).any(0)]
    del data.edge_attr
    with pytest.raises(ValueError, match="distance does not fit edge_index"):
        model(edge_channels=None)(data)


def test_graphs_of_several_types_are_refused():
    with pytest.raises(TypeError, match="got HeteroData"):
        model()(HeteroData())


def parameters(model):
    return sum(weight.numel() for weight in model.parameters())


def test_published_sizes():
    assert parameters(Graphormer.slim(node_types=64, edge_types=64, out_channels=1)) == 489_321
    with torch.device("meta"):
        base = Graphormer.base(node_types=4609, edge_types=1537, out_channels=1)
    assert parameters(base) == 47_085_377


def test_all_parameters_are_trained():
    one = model(dropout=0.2, path_dropout=0.1, max_hops=3, max_distance=1, max_degree=2).train()
    one(Batch.from_data_list([graph(7), graph(11, 1)])).square().sum().backward()
    assert [name for name, weight in one.named_parameters() if weight.grad is None] == []
