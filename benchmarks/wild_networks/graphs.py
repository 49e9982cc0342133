"""Libraries of networks for graphs and molecules."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn

from .common import Made, Networks

NODES: Final = 9
EDGES: Final = 22
WIDTH: Final = 8
_RELATIONS: Final = (("a", "to", "b"), ("b", "back", "a"))
_TYPES: Final = ["a", "b"]


def edges() -> Tensor:
    """A ring, in both directions, and a few further edges."""
    ring = torch.arange(NODES)
    pairs = torch.stack([ring, (ring + 1) % NODES])
    return torch.cat([pairs, pairs.flip(0), torch.tensor([[0, 2, 4, 6], [3, 5, 7, 1]])], dim=1)


def _given() -> dict[str, Any]:
    """What the forward passes of layers take by name."""
    ring = edges()
    normal = torch.nn.functional.normalize(torch.rand(NODES, 3), dim=-1)
    return {
        "edge_index": ring, "edge_weight": torch.rand(EDGES), "edge_attr": torch.rand(EDGES, 3),
        "edge_type": torch.arange(EDGES) % 3, "node_type": torch.arange(NODES) % 2, "pos": torch.rand(NODES, 3),
        "normal": normal, "batch": torch.zeros(NODES, dtype=torch.long), "pos_edge_index": ring[:, ::2],
        "neg_edge_index": ring[:, 1::2], "hyperedge_index": torch.stack([ring[0], ring[1] // 2]),
    }  # fmt: skip


class Stacked(nn.Module):
    """A layer of nodes, a layer of the library, again one of nodes, and a mean over nodes."""

    def __init__(self, layer: nn.Module, extra: tuple[str, ...], out: int = WIDTH) -> None:
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(WIDTH, WIDTH), layer, nn.Linear(out, 5)
        self.extra = extra

    def forward(self, x: Tensor, given: dict[str, Any]) -> Tensor:
        x = self.first(x).relu()
        known = {"x_0": x, **given}
        result = self.layer(x, **{name: known[name] for name in self.extra})
        result = result[0] if isinstance(result, tuple) else result
        return self.last(result.relu()).mean(0)


class StackedTypes(nn.Module):
    """Like :class:`Stacked`, for graphs with several types of nodes."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(WIDTH, WIDTH), layer, nn.Linear(WIDTH, 5)

    def forward(self, x: dict[str, Tensor], edge_index: dict[Any, Tensor]) -> Tensor:
        x = {kind: self.first(nodes).relu() for kind, nodes in x.items()}
        return sum(self.last(nodes).mean(0) for nodes in self.layer(x, edge_index).values())


def _perceptron(into: int = WIDTH, out: int = WIDTH) -> nn.Module:
    return nn.Sequential(nn.Linear(into, 11), nn.ReLU(), nn.Linear(11, out))


_REQUIRED: Final[dict[str, Any]] = {
    "in_channels": WIDTH, "out_channels": WIDTH, "channels": WIDTH, "hidden_channels": WIDTH, "num_relations": 3,
    "num_layers": 2, "K": 2, "alpha": 0.5, "dim": 3, "kernel_size": 3, "edge_dim": 3, "num_node_types": 2,
    "num_edge_types": 3, "edge_type_emb_dim": 4, "edge_attr_emb_dim": 4, "space_dimensions": 3, "filter_size": 2,
    "propagate_dimensions": 6, "k": 3, "first_aggr": True, "metadata": (_TYPES, list(_RELATIONS)), "heads": 2,
    "aggregators": ["mean", "max"], "scalers": ["identity", "amplification"], "deg": torch.tensor([0, 0, 5, 4]),
}  # fmt: skip
_SPECIAL: Final[dict[str, Callable[[Any], nn.Module]]] = {
    "GINConv": lambda layer: layer(_perceptron(), train_eps=True),
    "GINEConv": lambda layer: layer(_perceptron(), edge_dim=3),
    "EdgeConv": lambda layer: layer(_perceptron(2 * WIDTH)),
    "DynamicEdgeConv": lambda layer: layer(_perceptron(2 * WIDTH), k=3),
    "NNConv": lambda layer: layer(WIDTH, WIDTH, _perceptron(3, WIDTH * WIDTH)),
    "PointNetConv": lambda layer: layer(_perceptron(WIDTH + 3), _perceptron()),
    "PPFConv": lambda layer: layer(_perceptron(WIDTH + 4), _perceptron()),
    "PointGNNConv": lambda layer: layer(_perceptron(WIDTH, 3), _perceptron(WIDTH + 3), _perceptron()),
    "DirGNNConv": lambda layer: layer(_gcn()),
    "GPSConv": lambda layer: layer(WIDTH, _gcn(), heads=2),
    "AntiSymmetricConv": lambda layer: layer(WIDTH),
    "GMMConv": lambda layer: layer(WIDTH, WIDTH, dim=3, kernel_size=3),
    "SplineConv": lambda layer: layer(WIDTH, WIDTH, dim=3, kernel_size=3),
    "CGConv": lambda layer: layer(WIDTH, dim=3),
    "MixHopConv": lambda layer: layer(WIDTH, WIDTH),
    "FastRGCNConv": lambda layer: layer(WIDTH, WIDTH, 3, num_bases=2),
    "SignedConv": lambda layer: layer(WIDTH, WIDTH // 2, first_aggr=True),
    "HypergraphConv": lambda layer: layer(WIDTH, WIDTH),
    "GeneralConv": lambda layer: layer(WIDTH, WIDTH, in_edge_channels=3, attention=True),
    "MemPooling": lambda layer: layer(WIDTH, WIDTH, heads=2, num_clusters=3),
    "AttentionalAggregation": lambda layer: layer(_perceptron(WIDTH, 1)),
    "SoftmaxAggregation": lambda layer: layer(learn=True, channels=WIDTH),
    "PowerMeanAggregation": lambda layer: layer(learn=True, channels=WIDTH),
    "DeepSetsAggregation": lambda layer: layer(_perceptron(), _perceptron()),
    "MLPAggregation": lambda layer: layer(WIDTH, WIDTH, max_num_elements=NODES, num_layers=1),
    "Set2Set": lambda layer: layer(WIDTH, processing_steps=2),
    "SetTransformerAggregation": lambda layer: layer(WIDTH, heads=2),
    "GraphMultisetTransformer": lambda layer: layer(WIDTH, k=3, heads=2),
    "PatchTransformerAggregation": lambda layer: layer(WIDTH, WIDTH, patch_size=4, hidden_channels=WIDTH, heads=2),
    "EquilibriumAggregation": lambda layer: layer(WIDTH, WIDTH, num_layers=[6, 6]),
}  # fmt: skip
_OUT: Final = {"DynamicEdgeConv": WIDTH, "MixHopConv": 3 * WIDTH, "Set2Set": 2 * WIDTH, "FeaStConv": WIDTH}
_HETERO: Final = ("HANConv", "HGTConv", "HeteroConv")
_OPTIONAL: Final = ("edge_weight", "edge_attr", "edge_type", "batch", "pos")


def _gcn() -> nn.Module:
    from torch_geometric.nn import GCNConv

    layer: nn.Module = GCNConv(WIDTH, WIDTH)
    return layer


def _build(layer: type[nn.Module]) -> nn.Module:
    """A layer with its required options."""
    if layer.__name__ in _SPECIAL:
        return _SPECIAL[layer.__name__](layer)
    options = inspect.signature(layer).parameters
    named = {name: _REQUIRED[name] for name in options if name in _REQUIRED and _needs(name, options[name])}
    return layer(**named)


def _needs(name: str, option: inspect.Parameter) -> bool:
    return option.default is option.empty or name in ("in_channels", "out_channels", "edge_dim", "heads")


def _layer(layer: type[nn.Module]) -> Made:
    """A network with one layer of the library."""
    x, given, name = torch.rand(NODES, WIDTH), _given(), layer.__name__
    if name in _HETERO:
        from torch_geometric.nn import HeteroConv, SAGEConv

        built = HeteroConv({kind: SAGEConv(WIDTH, WIDTH) for kind in _RELATIONS}) if layer is HeteroConv else None
        index = {_RELATIONS[0]: edges(), _RELATIONS[1]: edges().flip(0)}
        return StackedTypes(built or _build(layer)), (dict.fromkeys(_TYPES, x), index)
    built = _build(layer)
    taken = inspect.signature(built.forward).parameters
    asked = tuple(
        key
        for key in list(taken)[1:]
        if key in (*given, "x_0") and (taken[key].default is inspect.Parameter.empty or key in _OPTIONAL)
    )
    if name in ("FAConv", "GCN2Conv"):
        asked = tuple(key for key in asked if key != "edge_weight")
    if (hasattr(built, "edge_dim") and built.edge_dim is None) or name in ("SuperGATConv", "GENConv"):
        asked = tuple(key for key in asked if key != "edge_attr")
    out = getattr(built, "heads", 1) * WIDTH if getattr(built, "concat", False) is True else WIDTH
    network = Stacked(built, asked, _OUT.get(name, out))
    given = {key: given[key] for key in asked if key != "x_0"}
    return network, (x, given)


class Pooled(nn.Module):
    """A convolution, an aggregation or pooling of its nodes, and a classifier."""

    def __init__(self, pool: nn.Module, out: int) -> None:
        super().__init__()
        self.convolution, self.pool, self.classifier = _gcn(), pool, nn.Linear(out, 5)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.convolution(x, edge_index).relu()
        taken = inspect.signature(type(self.pool).forward).parameters
        given = {"edge_index": edge_index, "batch": torch.zeros(len(x), dtype=torch.long)}
        result = self.pool(x, **{name: value for name, value in given.items() if name in taken})
        result = result[0] if isinstance(result, tuple) else result
        return self.classifier(result.flatten(0, -2)).mean(0)


def _pool(layer: type[nn.Module]) -> Made:
    options = {"aggrs": ["mean", "std"]} if layer.__name__ == "MultiAggregation" else None
    built = layer(**options) if options else _build(layer)
    out = {"Set2Set": 2 * WIDTH, "MultiAggregation": 2 * WIDTH, "SortAggregation": 3 * WIDTH}.get(layer.__name__, WIDTH)
    return Pooled(built, out), (torch.rand(NODES, WIDTH), edges())


class Called(nn.Module):
    """Calls a method of a model, for models without a forward pass of their own."""

    def __init__(self, model: nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self.call = model, call

    def forward(self, *args: Any) -> Any:
        return self.call(self.model, *args)


def _models() -> Networks:
    from torch_geometric import nn as library
    from torch_geometric.nn import models

    x, ring = torch.rand(NODES, WIDTH), edges()
    given = _given()
    atoms, place = torch.arange(NODES) % 5 + 1, 3 * torch.rand(NODES, 3)
    whole = torch.zeros(NODES, dtype=torch.long)
    basic = {name: lambda name=name: (getattr(models, name)(WIDTH, 11, 2, 5), (x, ring))
             for name in ("GCN", "GraphSAGE", "GIN", "GAT", "EdgeCNN")}  # fmt: skip
    encoder = lambda: models.GCN(WIDTH, 11, 2, 7)  # noqa: E731

    def edge_model() -> nn.Module:
        return Called(_perceptron(2 * WIDTH + 3, 3), lambda net, a, b, e, u, i: net(torch.cat([a, b, e], 1)))

    def node_model() -> nn.Module:
        def call(net: Any, x: Tensor, index: Tensor, e: Tensor, u: Any, i: Any) -> Tensor:
            summed = torch.zeros(NODES, 3).index_add(0, index[1], e)
            return net(torch.cat([x, summed], 1))

        return Called(_perceptron(WIDTH + 3), call)

    return {
        **basic,
        "GAT with normalisation, v2": lambda: (
            models.GAT(WIDTH, 12, 3, 5, v2=True, heads=2, norm="BatchNorm", jk="cat"), (x, ring)),
        "GCN with layer norms": lambda: (models.GCN(WIDTH, 11, 3, 5, norm="LayerNorm", jk="lstm"), (x, ring)),
        "GraphSAGE with graph norms": lambda: (models.GraphSAGE(WIDTH, 11, 3, 5, norm="GraphNorm", jk="max"), (x,
            ring)),
        "PNA": lambda: (models.PNA(WIDTH, 12, 2, 5, aggregators=["mean", "max"], scalers=["identity"],
                                   deg=torch.tensor([0, 0, 5, 4])), (x, ring)),
        "MLP": lambda: (models.MLP([WIDTH, 11, 5]), x),
        "GAE": lambda: (Called(models.GAE(encoder()), lambda m, x, e: m.decode(m.encode(x, e), e)), (x, ring)),
        "VGAE": lambda: (Called(models.VGAE(_Variational()), lambda m, x, e: m.decode(m.encode(x, e), e)), (x, ring)),
        "ARGA": lambda: (Called(models.ARGA(encoder(), _perceptron(7, 1)),
                                lambda m, x, e: m.discriminator(m.encode(x, e))), (x, ring)),
        "DeepGraphInfomax": lambda: (
            models.DeepGraphInfomax(WIDTH, _gcn(), lambda z, *_, **__: z.mean(0).sigmoid(),
                                    lambda x, e: (x.flip(0), e)), (x, ring)),
        "GraphUNet": lambda: (models.GraphUNet(WIDTH, 11, 5, depth=2, pool_ratios=0.5), (x, ring)),
        "SchNet": lambda: (models.SchNet(16, 16, 2, 10, interaction_graph=_All()), (atoms, place, whole)),
        "AttentiveFP": lambda: (models.AttentiveFP(WIDTH, 11, 5, 3, 2, 2), (x, ring, given["edge_attr"], whole)),
        "NeuralFingerprint": lambda: (models.NeuralFingerprint(WIDTH, 11, 5, 2), (x, ring)),
        "LINKX": lambda: (models.LINKX(NODES, WIDTH, 11, 5, 2), (x, ring)),
        "LightGCN": lambda: (models.LightGCN(NODES, WIDTH, 2), ring),
        "PMLP": lambda: (models.PMLP(WIDTH, 11, 5, 2), (x, ring)),
        "RECT_L": lambda: (models.RECT_L(WIDTH, 11), (x, ring)),
        "SGFormer": lambda: (models.SGFormer(WIDTH, 12, 5), (x, ring, whole)),
        "Polynormer": lambda: (models.Polynormer(WIDTH, 12, 5, 2, 1), (x, ring, whole)),
        "SignedGCN": lambda: (models.SignedGCN(WIDTH, 12, 2), (x, ring[:, ::2], ring[:, 1::2])),
        "MetaLayer": lambda: (models.MetaLayer(edge_model(), node_model()), (x, ring, given["edge_attr"])),
                "DeepGCNLayer": lambda: (_Deep(), (x, ring)),
        "GroupAddRev": lambda: (models.GroupAddRev(library.GCNConv(WIDTH // 2, WIDTH // 2), num_groups=2), (x, ring)),
        "ARLinkPredictor": lambda: (models.ARLinkPredictor(WIDTH, 11, 6), (x, ring)),
        "MaskLabel": lambda: (Called(models.MaskLabel(5, WIDTH), lambda m, x, y, k: m(x, y, k)),
                              (x, torch.arange(NODES) % 5, torch.arange(NODES) < 4)),
        "RGCN with bases": lambda: (Stacked(library.RGCNConv(WIDTH, WIDTH, 3, num_bases=2),
                                            ("edge_index", "edge_type")),
                                    (x, {key: given[key] for key in ("edge_index", "edge_type")})),
        "a hand-written network for Data": lambda: (_OfData(), _data()),
        "a network for HeteroData": _hetero,
    }  # fmt: skip


class _Variational(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared, self.mean, self.spread = _gcn(), _gcn(), _gcn()

    def forward(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        x = self.shared(x, edge_index).relu()
        return self.mean(x, edge_index), self.spread(x, edge_index)


class _All(nn.Module):
    """The complete graph and its distances."""

    def forward(self, place: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        row, column = torch.triu_indices(len(place), len(place), 1)
        return torch.stack([row, column]), (place[row] - place[column]).norm(dim=-1)


class _Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        from torch_geometric.nn import DeepGCNLayer, GENConv

        def layer() -> nn.Module:
            conv = GENConv(WIDTH, WIDTH, aggr="softmax", t=1.0, learn_t=True, num_layers=2, norm="layer")
            return DeepGCNLayer(conv, nn.LayerNorm(WIDTH), nn.ReLU(), block="res+", dropout=0.1)

        self.layers, self.head = nn.ModuleList([layer(), layer()]), nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, edge_index)
        return self.head(x)


class _OfData(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        from torch_geometric.nn import GATConv, TopKPooling

        self.first, self.pool, self.second = GATConv(WIDTH, 5, heads=2), TopKPooling(10, 0.6), GATConv(10, 7)
        self.head = nn.Linear(14, 3)

    def forward(self, data: Any) -> Tensor:
        from torch_geometric.nn import global_max_pool, global_mean_pool

        x = self.first(data.x, data.edge_index).relu()
        x, edge_index, _, batch, _, _ = self.pool(x, data.edge_index, batch=data.batch)
        x = self.second(x, edge_index)
        return self.head(torch.cat([global_mean_pool(x, batch), global_max_pool(x, batch)], 1))


def _data() -> Any:
    from torch_geometric.data import Batch, Data

    def one() -> Data:
        return Data(x=torch.rand(NODES, WIDTH), edge_index=edges())

    return Batch.from_data_list([one(), one()])


def _hetero() -> Made:
    from torch_geometric.data import HeteroData
    from torch_geometric.nn import GraphConv, to_hetero

    data = HeteroData()
    data["a"].x, data["b"].x = torch.rand(NODES, WIDTH), torch.rand(NODES, WIDTH)
    for relation in _RELATIONS:
        data[relation].edge_index = edges()

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = GraphConv(WIDTH, 11), GraphConv(11, 5)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.second(self.first(x, edge_index).relu(), edge_index)

    network: nn.Module = to_hetero(Plain(), data.metadata())
    return network, (data.x_dict, data.edge_index_dict)


def torch_geometric() -> Networks:
    """Its models, a network with each of its convolutions, and one with each aggregation or pooling with weights."""
    from torch_geometric.nn import aggr, conv, pool

    left_out = ("MessagePassing", "DNAConv", "SimpleConv", "LGConv", "WLConv", "WLConvContinuous", "MeshCNNConv",
        "APPNP",
                "PANConv", "FusedGATConv", "SplineConv", "XConv", "GravNetConv", "DynamicEdgeConv", "CuGraphGATConv",
                    "CuGraphRGCNConv", "CuGraphSAGEConv")  # fmt: skip
    convolutions = [getattr(conv, name) for name in sorted(conv.__all__) if name not in left_out]
    pools = [getattr(pool, name) for name in ("TopKPooling", "SAGPooling", "EdgePooling", "ClusterPooling",
                                              "ASAPooling", "MemPooling")]  # fmt: skip
    pools += [getattr(aggr, name) for name in (
        "SoftmaxAggregation", "PowerMeanAggregation", "LSTMAggregation", "GRUAggregation", "Set2Set", "SortAggregation",
        "GraphMultisetTransformer", "AttentionalAggregation", "EquilibriumAggregation", "MLPAggregation",
        "DeepSetsAggregation", "SetTransformerAggregation", "LCMAggregation", "PatchTransformerAggregation",
        "MultiAggregation",
    )]  # fmt: skip
    layers = {layer.__name__: lambda layer=layer: _layer(layer) for layer in convolutions}
    return {**_models(), **layers, **{layer.__name__: lambda layer=layer: _pool(layer) for layer in pools}}
