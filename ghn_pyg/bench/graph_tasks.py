"""Tasks on whole graphs: solubility of molecules (ZINC), and a label that is far away in the graph."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Final, Self

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.datasets import ZINC
from torch_geometric.loader import DataLoader

from ..models import ENCODERS, GHNConfig
from ..nn.readouts import LastReadout, Readout
from ..transforms import shortest_paths
from .base_task import Task

_ATOM_TYPES: Final = 28
_BOND_TYPES: Final = 4
_KEYS: Final = 4
_TRAIN_TEST_RATIO: Final = 4

Loss = Callable[[Tensor, Tensor], Tensor]


class GraphModel(nn.Module):
    """An embedding of node types, the encoder, a readout of each graph and an MLP."""

    def __init__(self, ghn: GHNConfig, node_types: int, out_channels: int, readout: nn.Module) -> None:
        super().__init__()
        width = ghn.hidden_channels
        self.embedding = nn.Embedding(node_types, width)
        self.encoder = ENCODERS[ghn.encoder].build(ghn)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out_channels))
        self.readout = readout

    def forward(self, batch: Batch) -> Tensor:
        """Outputs of shape (graphs, out_channels)."""
        x = self.encoder(self.embedding(batch.node_type), batch.edge_index, batch.distance, batch.batch)
        return self.head(self.readout(self.norm(x), batch.batch))


class GraphTask(Task):
    """A task on whole graphs, trained for some epochs with Adam and a cosine schedule from the peak learning rate."""

    epochs: PositiveInt = 30
    batch_size: PositiveInt = 64
    learning_rate: float = Field(1e-3, ge=0)

    def fit_predict(
        self, model: Callable[[], nn.Module], train: Sequence[Data], test: Sequence[Data], loss: Loss, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Builds and trains a model; returns its outputs on the test graphs and their targets."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            network = model()
            loader = DataLoader(train, self.batch_size, shuffle=True, generator=torch.Generator().manual_seed(seed))
            optimizer = torch.optim.Adam(network.parameters(), lr=self.learning_rate)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs * len(loader))
            for _ in range(self.epochs):
                for batch in loader:
                    optimizer.zero_grad()
                    loss(network(batch), batch.y).backward()
                    nn.utils.clip_grad_norm_(network.parameters(), 5.0)
                    optimizer.step()
                    schedule.step()
        network.eval()
        with torch.no_grad():
            outputs = [network(batch) for batch in DataLoader(test, self.batch_size)]
        return torch.cat(outputs), torch.cat([graph.y for graph in test])


class ZINCTask(GraphTask):
    """Mean absolute error of the constrained solubility of molecules of ZINC (12,000; arXiv 2003.00982).

    Encoders of GHNs take directed acyclic graphs without edge features: each bond becomes a node between its atoms, and
    edges point from the atom with the lower number to the one with the higher number.

    Args:
        folder: Folder of the data set, which is downloaded if it is missing.
        epochs, batch_size, learning_rate: Of the training.
    """

    kind: ClassVar[str] = "zinc"
    sign: ClassVar[int] = -1
    folder: str = "data/ZINC"

    def run(self, ghn: GHNConfig, seed: int, folder: Path) -> dict[str, float]:
        """The mean absolute error on the test molecules."""
        train, test = (
            [molecule_graph(data) for data in ZINC(self.folder, subset=True, split=split)]
            for split in ("train", "test")
        )
        model = functools.partial(GraphModel, ghn, _ATOM_TYPES + _BOND_TYPES, 1, Readout("mean"))
        return {"MAE": _mean_absolute_error(*self.fit_predict(model, train, test, _mean_absolute_error, seed)).item()}


def _mean_absolute_error(output: Tensor, y: Tensor) -> Tensor:
    return F.l1_loss(output.flatten(), y)


def molecule_graph(molecule: Data) -> Data:
    """A molecule of PyG's ZINC as a directed acyclic graph with bonds as nodes, in topological order.

    Example:
        >>> bond = Data(x=torch.tensor([[5], [2]]), edge_index=torch.tensor([[0, 1], [1, 0]]),
        ...             edge_attr=torch.tensor([1, 1]), y=torch.tensor([0.5]))
        >>> molecule_graph(bond).node_type.tolist(), molecule_graph(bond).edge_index.tolist()
        ([5, 29, 2], [[0, 1], [1, 2]])
    """
    bonds: dict[int, list[tuple[int, int]]] = {}
    for (low, high), bond in zip(molecule.edge_index.t().tolist(), molecule.edge_attr.flatten().tolist(), strict=True):
        if low < high:
            bonds.setdefault(high, []).append((low, bond))
    node_types: list[int] = []
    edges: list[tuple[int, int]] = []
    atom_nodes: list[int] = []
    for atom, atom_type in enumerate(molecule.x.flatten().tolist()):
        own_bonds = sorted(bonds.get(atom, []))
        atom_node = len(node_types) + len(own_bonds)
        for low, bond in own_bonds:
            edges += [(atom_nodes[low], len(node_types)), (len(node_types), atom_node)]
            node_types.append(_ATOM_TYPES + bond)
        node_types.append(atom_type)
        atom_nodes.append(atom_node)
    return _with_distances(node_types, edges, molecule.y.flatten()[:1])


class LongRangeTask(GraphTask):
    """Accuracy of predicting, from the end of a long chain, the key at its beginning; chance is 25 %.

    All other nodes of the chain and of its side branches have random keys. A message-passing encoder cannot see nodes
    that are further away than it has layers; attention must select one of many nodes by its position in the graph.

    Args:
        graphs: Number of training graphs; a quarter as many are test graphs.
        shortest: Nodes of the shortest chain.
        longest: Nodes of the longest chain.
        epochs, batch_size, learning_rate: Of the training.
    """

    kind: ClassVar[str] = "long_range"
    sign: ClassVar[int] = 1
    graphs: Annotated[int, Field(ge=_TRAIN_TEST_RATIO)] = 2000
    shortest: Annotated[int, Field(ge=2)] = 6
    longest: PositiveInt = 40

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if self.shortest > self.longest:
            raise ValueError(f"shortest expected at most longest, got {self.shortest} and {self.longest}")
        return self

    def run(self, ghn: GHNConfig, seed: int, folder: Path) -> dict[str, float]:
        """Accuracy on the test graphs."""
        generator = torch.Generator().manual_seed(seed)
        count = self.graphs + self.graphs // _TRAIN_TEST_RATIO
        graphs = [chain_graph(self.shortest, self.longest, generator) for _ in range(count)]
        train, test = graphs[: self.graphs], graphs[self.graphs :]
        model = functools.partial(GraphModel, ghn, _KEYS, _KEYS, LastReadout())
        output, y = self.fit_predict(model, train, test, F.cross_entropy, seed)
        return {"accuracy": (output.argmax(1) == y).float().mean().item()}


def chain_graph(shortest: int, longest: int, generator: torch.Generator) -> Data:
    """A chain of random keys with side branches of one node; its class is the first key.

    Example:
        >>> graph = chain_graph(5, 5, torch.Generator().manual_seed(0))
        >>> int(graph.y) == int(graph.node_type[0])
        True
    """
    length = int(torch.randint(shortest, longest + 1, (), generator=generator))
    has_branch = torch.rand(length, generator=generator) < 1 / math.e
    edges: list[tuple[int, int]] = []
    count, last = 1, 0
    for branch in has_branch[1:].tolist():
        if branch:
            edges.append((last, count))
            count += 1
        edges.append((last, count))
        last, count = count, count + 1
    keys = torch.randint(_KEYS, (count,), generator=generator).tolist()
    return _with_distances(keys, edges, torch.tensor(keys[:1]))


def _with_distances(node_types: Sequence[int], edges: Sequence[tuple[int, int]], y: Tensor) -> Data:
    """A graph with the shortest-path distances that encoders take."""
    edge_index = torch.tensor(edges, dtype=torch.long).view(-1, 2).t().contiguous()
    distance = shortest_paths(edge_index, len(node_types)).flatten()
    return Data(
        node_type=torch.tensor(node_types), edge_index=edge_index, distance=distance, num_nodes=len(node_types), y=y
    )
