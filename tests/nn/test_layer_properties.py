"""The properties of the layers for any PyG data set, put together as a user does."""

import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GATv2Conv

from ghn_pyg.nn import (
    Blocks,
    CentralityEncoding,
    ConvEncoder,
    EdgePathEncoding,
    GraphTransformer,
    SparseGraphormerLayer,
    SpatialEncoding,
    table_attention,
)
from ghn_pyg.nn.blocks import distance_matrices
from ghn_pyg.transforms import AddShortestPathEdges, AddShortestPathPairs
from tests.properties import (
    ENCODER_PROPERTIES,
    TOLERANCE,
    edges_may_come_in_any_order,
    gradients_are_finite,
    name_of,
    nodes_may_come_in_any_order_in_cyclic_graphs,
    nodes_may_come_in_any_topological_order,
)

D, HEADS, HOPS = 12, 3, 2
PROPERTIES = (*ENCODER_PROPERTIES, nodes_may_come_in_any_order_in_cyclic_graphs)


class Spatial(nn.Module):
    """Biases of distances."""

    def __init__(self, directed=True, **options):
        super().__init__()
        self.spatial = SpatialEncoding(HEADS, max_distance=5, directed=directed)
        self.layers = GraphTransformer(D, 2, HEADS, **options)

    def forward(self, x, edge_index, distance, batch=None):
        blocks = Blocks.of(batch, len(x))
        return self.layers(x, blocks, self.spatial(distance, blocks))


class Undirected(Spatial):
    """Distances that are the same in both directions."""

    def __init__(self):
        super().__init__(directed=False)

    def forward(self, x, edge_index, distance, batch=None):
        parts = distance_matrices(distance.long(), Blocks.of(batch, len(x)).sizes)
        return super().forward(x, edge_index, torch.cat([(part + part.T).flatten() for part in parts]), batch)


class Table(Spatial):
    """Biases from their table, which has no gradients on a CPU."""

    def __init__(self):
        super().__init__(attention=table_attention)

    @torch.no_grad()
    def forward(self, x, edge_index, distance, batch=None):
        return super().forward(x, edge_index, distance, batch)


class Central(nn.Module):
    """Degrees."""

    def __init__(self):
        super().__init__()
        self.centrality = CentralityEncoding(D)
        self.layers = GraphTransformer(D, 2, HEADS)

    def forward(self, x, edge_index, distance, batch=None):
        return self.layers(x + self.centrality(edge_index, len(x)), batch)


class EdgePaths(nn.Module):
    """Biases of the edges along paths; features of an edge come from its ends."""

    def __init__(self):
        super().__init__()
        self.paths = EdgePathEncoding(D, HEADS, HOPS)
        self.layers = GraphTransformer(D, 2, HEADS)

    def forward(self, x, edge_index, distance, batch=None):
        blocks = Blocks.of(batch, len(x))
        graph, start, paths = blocks.vector()[edge_index[0]], 0, []
        for position, size in enumerate(blocks.sizes):
            own = Data(edge_index=edge_index[:, graph == position] - start, num_nodes=size)
            paths.append(AddShortestPathEdges(HOPS, directed=True)(own).path_edges)
            start += size
        features = x[edge_index[0]] - x[edge_index[1]]
        return self.layers(x, blocks, self.paths(edge_index, features, torch.cat(paths), blocks))


class Pairs(nn.Module):
    """Sparse attention to near nodes."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Embedding(4, HEADS)
        self.layers = nn.ModuleList(SparseGraphormerLayer(D, HEADS) for _ in range(2))

    def forward(self, x, edge_index, distance, batch=None):
        data = AddShortestPathPairs(3)(Data(edge_index=edge_index, num_nodes=len(x)))
        for layer in self.layers:
            x = layer(x, data.pair_index, self.bias(data.pair_distance.long()))
        return x


def attentive():
    return ConvEncoder(D, [GATv2Conv(D, D // HEADS, heads=HEADS, edge_dim=D) for _ in range(2)])


KINDS = {
    "directed": Spatial,
    "undirected": Undirected,
    "checkpointing": lambda: Spatial(checkpointing=True),
    "table": Table,
    "centrality": Central,
    "edge-paths": EdgePaths,
    "pairs": Pairs,
    "convolutions": attentive,
}
# Of several shortest paths that counts whose edges come first.
LACKING = {
    "edge-paths": (
        edges_may_come_in_any_order,
        nodes_may_come_in_any_topological_order,
        nodes_may_come_in_any_order_in_cyclic_graphs,
    ),
    "table": (gradients_are_finite,),
}
CASES = [(holds, kind) for kind in KINDS for holds in PROPERTIES if holds not in LACKING.get(kind, ())]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("holds", "kind"), CASES, ids=lambda part: part if isinstance(part, str) else name_of(part))
def test_properties(holds, kind, dtype):
    torch.manual_seed(3)
    holds(KINDS[kind]().to(dtype), D)
