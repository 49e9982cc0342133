"""vmap, jvp, jacrev, ensembles, compilers and exports, through every layer."""

import importlib.util

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev, jvp, stack_module_state, vmap
from torch_geometric.data import Data
from torch_geometric.nn import SAGEConv

from ghn_pyg.nn import (
    AttentionReadout,
    Blocks,
    CentralityEncoding,
    DistanceBias,
    EdgePathEncoding,
    GatedGNN,
    GHN3Encoder,
    GPSLayer,
    GraphormerLayer,
    GraphToken,
    GraphTransformer,
    NodeMLP,
    SparseTransformer,
    SpatialEncoding,
    add_biases,
)
from ghn_pyg.transforms import AddShortestPathDistance, AddShortestPathEdges
from tests.properties import assert_close

# PyTorch maps over gru_cell one by one, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")

D, HEADS = 6, 2


def edges_of(nodes, start=0):
    return torch.tensor([[u, u + 1] for u in range(nodes - 1)] + [[0, nodes - 1]]).t() + start


SIZES = (4, 3, 5)
EDGES = torch.cat([edges_of(size, sum(SIZES[:number])) for number, size in enumerate(SIZES)], 1)
GRAPHS = [Data(edge_index=edges_of(size), num_nodes=size) for size in SIZES]
GRAPHS = [AddShortestPathEdges(2, True)(AddShortestPathDistance(directed=True)(graph)) for graph in GRAPHS]
DISTANCE = torch.cat([graph.distance for graph in GRAPHS])
PATHS = torch.cat([graph.path_edges for graph in GRAPHS])
BATCH = torch.arange(3).repeat_interleave(torch.tensor(SIZES))


class Everything(nn.Module):
    """Distances, paths, degrees, a token and a readout."""

    def __init__(self, layout="grouped"):
        super().__init__()
        self.layout = layout
        self.spatial = SpatialEncoding(HEADS, directed=True)
        self.paths = EdgePathEncoding(D, HEADS, 2)
        self.centrality = CentralityEncoding(D)
        self.token = GraphToken(D, HEADS)
        self.layers = GraphTransformer(D, 2, HEADS)
        self.readout = AttentionReadout(D)

    def forward(self, x, edge_index, distance, batch=None):
        blocks = Blocks.of(batch, x.size(0), layout=self.layout)
        attr = x.index_select(0, edge_index[0])
        bias = add_biases(self.spatial(distance, blocks), self.paths(edge_index, attr, PATHS, blocks))
        x, blocks, bias = self.token(x + self.centrality(edge_index, x.size(0)), blocks, bias)
        x = self.layers(x, blocks, bias)
        return torch.cat((self.readout(x, blocks), self.token.split(x, blocks)[1]))


class Convolutions(nn.Module):
    """GPS layers."""

    def __init__(self):
        super().__init__()
        self.layer = GPSLayer(D, SAGEConv(D, D), HEADS, norm="layer")

    def forward(self, x, edge_index, distance, batch=None):
        return self.layer(x, edge_index, batch)


ENCODERS = {
    "everything": Everything,
    "everything padded": lambda: Everything("padded"),
    "ghn-3": lambda: GHN3Encoder(D, 2, HEADS),
    "gated": lambda: GatedGNN(D),
    "gps": lambda: Convolutions(),
    "mlp": lambda: NodeMLP(D),
    "sparse": lambda: SparseTransformer(D, 2, HEADS),
}
KINDS = pytest.mark.parametrize("kind", ENCODERS)


def encoder(kind, seed=3):
    torch.manual_seed(seed)
    return ENCODERS[kind]().double()


def nodes(count=None):
    shape = (sum(SIZES), D) if count is None else (count, sum(SIZES), D)
    return torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@KINDS
def test_vmap_over_nodes(kind):
    model, x = encoder(kind), nodes(3)
    found = vmap(lambda x: model(x, EDGES, DISTANCE, BATCH))(x)
    assert_close(found, torch.stack([model(one, EDGES, DISTANCE, BATCH) for one in x]), 1e-9)


@KINDS
def test_ensembles(kind):
    models, x = [encoder(kind, seed) for seed in range(3)], nodes()
    parameters, buffers = stack_module_state(models)

    def call(parameters, buffers):
        return functional_call(models[0], (parameters, buffers), (x, EDGES, DISTANCE, BATCH))

    assert_close(vmap(call)(parameters, buffers), torch.stack([one(x, EDGES, DISTANCE, BATCH) for one in models]), 1e-9)


@KINDS
def test_derivatives_in_both_directions_agree(kind):
    model, x, direction = encoder(kind), nodes(), nodes(2)[1]
    blocks = Blocks.of(BATCH, len(x))

    def call(x):
        return model(x, EDGES, DISTANCE, BATCH if "padded" in kind else blocks)

    _, tangent = jvp(call, (x,), (direction,))
    jacobian = jacrev(lambda x: call(x)[:2])(x)
    assert_close(tangent[:2], (jacobian * direction).sum((-1, -2)), 1e-9)
    assert tangent.any()


@pytest.mark.parametrize("bias", [SpatialEncoding(HEADS), DistanceBias(D, HEADS)])
def test_derivatives_of_biases(bias):
    layer, x, blocks = GraphormerLayer(D, HEADS), nodes().float(), Blocks.of(BATCH, 12)
    weights = dict(bias.named_parameters())

    def call(weights):
        return layer(x, blocks, functional_call(bias, weights, (DISTANCE, blocks))).sum(0)

    _, tangent = jvp(call, (weights,), ({name: torch.ones_like(part) for name, part in weights.items()},))
    jacobian = jacrev(call)(weights)
    assert_close(tangent, sum(part.flatten(1).sum(1) for part in jacobian.values()), 1e-4)


# --- compilers and exports -------------------------------------------------------------------------------------------


@pytest.fixture
def compiled():
    """Counts how often a function is compiled."""
    torch._dynamo.reset()
    count = []

    def backend(module, _):
        count.append(module)
        return module.forward

    yield lambda function: (torch.compile(function, backend=backend, dynamic=True, fullgraph=True), count)
    torch._dynamo.reset()


def molecules(seed, count=17):
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(3, 30, (count,), generator=generator)
    x = torch.randn(int(sizes.sum()), D, generator=generator)
    distance = torch.randint(0, 5, (int(sizes.square().sum()),), generator=generator)
    return x, distance, torch.arange(count).repeat_interleave(sizes)


@pytest.mark.parametrize("layout", ["grouped", "padded"])
def test_the_compiler_settles(layout, compiled):
    spatial, token, layers = SpatialEncoding(HEADS), GraphToken(D, HEADS), GraphTransformer(D, 1, HEADS)

    def call(x, distance, blocks):
        x, blocks, bias = token(x, blocks, spatial(distance, blocks))
        return layers(x, blocks, bias)

    function, count = compiled(call if layout == "padded" else lambda x, d, b: layers(x, b, spatial(d, b)))
    for seed in range(6):
        x, distance, batch = molecules(seed, 16 + seed if layout == "padded" else 17)
        blocks = Blocks.of(batch, len(x), layout=layout)
        with torch.no_grad():
            found = function(x, distance, blocks)
            grouped = Blocks.of(batch, len(x))
            expected = (
                layers(x, grouped, spatial(distance, grouped)) if layout == "grouped" else call(x, distance, grouped)
            )
        assert_close(found, expected, 1e-5)
        if seed == 3:
            before = len(count)
    assert len(count) == before


class OfBatch(nn.Module):
    """Everything from tensors: exported with any number of nodes and of graphs."""

    def __init__(self):
        super().__init__()
        self.spatial, self.layers = SpatialEncoding(HEADS), GraphTransformer(D, 1, HEADS)
        self.readout = AttentionReadout(D)

    def forward(self, x, distance, batch, ptr):
        blocks = Blocks.of(batch, x.size(0), ptr.size(0) - 1, layout="padded", size=32)
        return self.readout(self.layers(x, blocks, self.spatial(distance, blocks)), blocks)


def with_ptr(x, distance, batch):
    return x, distance, batch, torch.cat((torch.zeros(1).long(), batch.bincount().cumsum(0)))


def test_exports_with_any_number_of_nodes_and_graphs():
    model, auto = OfBatch(), torch.export.Dim.AUTO
    shapes = {name: {0: auto} for name in ("x", "distance", "batch", "ptr")}
    exported = torch.export.export(model, with_ptr(*molecules(0)), dynamic_shapes=shapes).module()
    given = with_ptr(*molecules(1, 5))
    assert_close(exported(*given), model(*given), 1e-5)


class OfGraph(nn.Module):
    """One graph."""

    def __init__(self):
        super().__init__()
        self.spatial, self.layers = SpatialEncoding(HEADS), GraphTransformer(D, 1, HEADS)

    def forward(self, x, distance):
        blocks = Blocks.of(None, x.size(0))
        return self.layers(x, blocks, self.spatial(distance, blocks))


class AllOfGraph(nn.Module):
    """One graph with distances, paths, degrees and a token."""

    def __init__(self):
        super().__init__()
        self.distance, self.paths = DistanceBias(D, HEADS), EdgePathEncoding(D, HEADS, 2)
        self.centrality, self.token = CentralityEncoding(D), GraphToken(D, HEADS)
        self.layers = GraphTransformer(D, 1, HEADS)

    def forward(self, x, edge_index, distance, path):
        blocks = Blocks.of(None, x.size(0))
        paths = self.paths(edge_index, x[edge_index[0]], path, blocks)
        x = x + self.centrality(edge_index, x.size(0))
        x, blocks, bias = self.token(x, blocks, add_biases(self.distance(distance, blocks), paths))
        return self.layers(x, blocks, bias)


def path_graph(nodes):
    data = Data(edge_index=edges_of(nodes), num_nodes=nodes)
    data = AddShortestPathEdges(2, True)(AddShortestPathDistance(directed=True)(data))
    return torch.randn(nodes, D), data.edge_index, data.distance, data.path_edges


def test_exports_of_one_graph_with_any_number_of_nodes():
    model, auto = AllOfGraph(), torch.export.Dim.AUTO
    shapes = {"x": {0: auto}, "edge_index": {1: auto}, "distance": {0: auto}, "path": {0: auto}}
    exported = torch.export.export(model, path_graph(11), dynamic_shapes=shapes).module()
    given = path_graph(17)
    assert_close(exported(*given), model(*given), 1e-5)


def test_onnx_of_one_graph(tmp_path):
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    import onnxruntime

    model, given = OfGraph().eval(), (torch.randn(7, D), torch.arange(49) % 5)
    torch.onnx.export(model, given, str(tmp_path / "model.onnx"), dynamo=True)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    names = [one.name for one in session.get_inputs()]
    (found,) = session.run(None, {name: part.numpy() for name, part in zip(names, given, strict=True)})
    assert_close(torch.from_numpy(found), model(*given), 1e-4)


def test_batches_without_compilers_are_the_same_padded():
    x, distance, batch = molecules(0)
    spatial, layers, readout = SpatialEncoding(HEADS), GraphTransformer(D, 2, HEADS), AttentionReadout(D)
    results = []
    for layout in ("grouped", "padded"):
        blocks = Blocks.of(batch, len(x), 20, layout=layout)
        results.append(readout(layers(x, blocks, spatial(distance, blocks)), blocks))
    assert_close(*results, 1e-5)
    assert results[1].shape == (20, D)
    with pytest.raises(ValueError, match="layout expected 'grouped' or 'padded'"):
        Blocks.of(batch, len(x), layout="dense")
