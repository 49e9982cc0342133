import pickle

import pytest
import torch
import torch_geometric.transforms as T
from torch_geometric.data import Batch, Data, HeteroData

from ghn_pyg.nn import EdgePathEncoding, SpatialEncoding
from ghn_pyg.transforms import (
    AddCentrality,
    AddShortestPathDistance,
    AddShortestPathEdges,
    AddShortestPathPairs,
    PairwiseData,
)


def dense(nodes=3):
    """As many edges as pairs of nodes, with distances and paths."""
    edges = torch.cartesian_prod(torch.arange(nodes), torch.arange(nodes)).t().contiguous()
    data = Data(edge_index=edges, edge_attr=torch.randn(edges.size(1), 2), num_nodes=nodes, x=torch.randn(nodes, 5))
    return AddShortestPathEdges(2)(AddShortestPathDistance()(data))


TRANSFORMS = [
    T.ToUndirected(), T.AddSelfLoops(), T.AddRemainingSelfLoops(), T.RemoveSelfLoops(), T.RemoveDuplicatedEdges(),
    T.RandomLinkSplit(num_val=0, num_test=2, neg_sampling_ratio=0), T.LineGraph(), T.VirtualNode(),
    T.Compose([T.RemoveSelfLoops(), T.AddSelfLoops()]),
]  # fmt: skip


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda one: type(one).__name__)
def test_attributes_of_pairs_are_no_edge_attributes(transform, many):
    data = Batch.from_data_list([dense(), dense()]) if many else dense()
    changed = transform(data)
    changed = changed[0] if isinstance(changed, tuple) else changed
    assert torch.equal(changed.distance, data.distance)
    assert torch.equal(changed.path_edges, data.path_edges)


def test_batches_and_copies_keep_them_apart():
    graphs = [dense(2), dense(5)]
    batch = pickle.loads(pickle.dumps(Batch.from_data_list(graphs)))  # noqa: S301
    assert batch.distance.shape == (29,)
    assert batch.path_edges.shape == (29, 2)
    assert [one.distance.tolist() for one in batch.to_data_list()] == [one.distance.tolist() for one in graphs]
    assert not any(data.is_edge_attr(name) for data in (batch, *graphs) for name in ("distance", "path_edges"))
    assert not any(data.is_node_attr(name) for data in (batch, *graphs) for name in ("distance", "path_edges"))
    assert graphs[1].coalesce().distance.shape == (25,)
    again = AddShortestPathDistance()(Batch.from_data_list([Data(edge_index=one.edge_index, num_nodes=len(one.x))
                                                            for one in graphs]))  # fmt: skip
    assert not again.is_edge_attr("distance")
    assert isinstance(again[1], PairwiseData)


def test_the_given_graph_stays_what_it_is():
    class Mine(Data):
        pass

    data = Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2)
    AddShortestPathDistance()(data)
    assert type(data) is Data
    assert type(AddShortestPathDistance()(Mine(edge_index=data.edge_index, num_nodes=2))) is Mine


TRANSFORMS_OF_OURS = [AddShortestPathDistance(), AddShortestPathEdges(), AddShortestPathPairs(2), AddCentrality()]


@pytest.mark.parametrize("transform", TRANSFORMS_OF_OURS, ids=repr)
def test_graphs_of_several_types_are_refused(transform):
    data = HeteroData()
    data["a"].num_nodes = 2
    data["a", "to", "a"].edge_index = torch.tensor([[0], [1]])
    for call in (transform, *([lambda data: transform.many([data])] if hasattr(transform, "many") else [])):
        with pytest.raises(TypeError, match=r"got HeteroData; call data\.to_homogeneous"):
            call(data)


# --- attributes that are out of date ---------------------------------------------------------------------------------


def ring(value=1.0, nodes=7):
    edges = torch.tensor([[u, (u + 1) % nodes] for u in range(nodes)]).t()
    attr = torch.full((nodes, 1), value)
    data = Data(edge_index=edges, edge_attr=attr, num_nodes=nodes, x=torch.arange(nodes)[:, None])
    return AddShortestPathEdges()(AddShortestPathDistance()(data))


def drop(data, keep):
    data = data.clone()
    data.edge_index, data.edge_attr = data.edge_index[:, keep], data.edge_attr[keep]
    return data


def renumbered(data):
    data = data.clone()
    data.edge_index = data.edge_index + data.edge_index.eq(0).long() * 3 - data.edge_index.eq(3).long() * 3
    return data


def isolated(data):
    return T.RemoveIsolatedNodes()(drop(data, slice(0, 3)))


CHANGES = {
    "first edge": lambda data: drop(data, slice(1, None)),
    "last edges": lambda data: drop(data, slice(0, 5)),
    "no edges": lambda data: drop(data, slice(0, 0)),
    "order of edges": lambda data: drop(data, torch.tensor([1, 0, 2, 3, 4, 5, 6])),
    "other direction": lambda data: T.ToUndirected()(data),
    "nodes": renumbered,
    "fewer nodes": isolated,
    "subgraph": lambda data: data.subgraph(torch.tensor([0, 1, 2, 4])),
}


STALE = pytest.mark.filterwarnings("ignore:distance does not fit edge_index")


@STALE
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_paths_of_other_edges_are_refused(change, place):
    graphs = [ring(), ring(2.0), ring(100.0)]
    graphs[place] = change(graphs[place])
    batch = Batch.from_data_list(graphs)
    with pytest.raises(ValueError, match="apply it again"):
        EdgePathEncoding(1, 1)(batch.edge_index, batch.edge_attr, batch.path_edges, batch.batch)


@STALE
@pytest.mark.parametrize("change", [CHANGES["fewer nodes"], CHANGES["subgraph"]])
def test_distances_of_other_nodes_are_refused(change):
    batch = Batch.from_data_list([ring(), change(ring())])
    with pytest.raises(ValueError, match="apply it again"):
        SpatialEncoding(2)(batch.distance, batch.batch)


UNDIRECTED = ("first edge", "last edges", "no edges", "nodes")


@pytest.mark.parametrize("name", [name for name in CHANGES if "fewer" not in name and name != "subgraph"])
def test_distances_of_other_edges_are_noticed(name):
    graphs = [ring(), CHANGES[name](ring()), ring()]
    if name not in UNDIRECTED:
        batch = Batch.from_data_list(graphs)  # the same distances
        SpatialEncoding(2)(batch.distance, batch.batch, edge_index=batch.edge_index)
        return
    with pytest.warns(UserWarning, match="distance does not fit edge_index"):
        batch = Batch.from_data_list(graphs)
    with pytest.raises(ValueError, match="distance does not fit edge_index"):
        SpatialEncoding(2)(batch.distance, batch.batch, edge_index=batch.edge_index)


def test_paths_stay_right_with_loops_and_more_of_the_same_edges():
    data = ring()
    data.edge_index = torch.cat((data.edge_index, torch.tensor([[2, 5], [2, 6]])), dim=1)
    data.edge_attr = torch.cat((data.edge_attr, torch.ones(2, 1)))
    assert len(EdgePathEncoding(1, 1)(data.edge_index, data.edge_attr, data.path_edges, torch.zeros(7).long())) == 1
