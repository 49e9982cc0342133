"""How well an encoder learns from whole graphs: molecules, and a task that needs what is far away."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.datasets import ZINC
from torch_geometric.loader import DataLoader

from ..models.config import GHNConfig
from ..models.encoders import ENCODERS
from ..nn.readouts import LastReadout, Readout
from ..transforms import shortest_paths
from .checks import check_task

_ATOMS: Final = 28
_BONDS: Final = 4
_KEYS: Final = 4
_TESTED_OF: Final = 4
"""So many training graphs for each test graph."""

Loss = Callable[[Tensor, Tensor], Tensor]


class GraphModel(nn.Module):
    r"""An encoder between an embedding of node types and a head.

    Args:
        ghn: The encoder.
        types: Number of node types.
        outputs: Numbers that the head gives.
        readout: Makes one embedding of a graph's nodes, as :class:`~ghn_pyg.nn.Readout` does.

    Shapes:
        - **input:** a batch with ``node_type``, ``edge_index`` and ``distance``
        - **output:** :math:`(G, \text{outputs})`
    """

    def __init__(self, ghn: GHNConfig, types: int, outputs: int, readout: nn.Module) -> None:
        super().__init__()
        width = ghn.hidden_channels
        self.embedding = nn.Embedding(types, width)
        self.encoder = ENCODERS[ghn.encoder].build(ghn)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs))
        self.readout = readout

    def forward(self, batch: Batch) -> Tensor:
        """Predicts for each graph."""
        x = self.encoder(self.embedding(batch.node_type), batch.edge_index, batch.distance, batch.batch)
        return self.head(self.readout(self.norm(x), batch.batch))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _GraphTask:
    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        check_task(self)

    def fit(self, model: nn.Module, graphs: Sequence[Data], loss: Loss, seed: int) -> None:
        """Trains with Adam and a cosine schedule."""
        generator = torch.Generator().manual_seed(seed)
        loader = DataLoader(graphs, self.batch_size, shuffle=True, generator=generator)
        optimizer = torch.optim.Adam(model.parameters(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs * len(loader))
        model.train()
        for _ in range(self.epochs):
            for batch in loader:
                optimizer.zero_grad()
                loss(model(batch), batch.y).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                optimizer.step()
                schedule.step()
        model.eval()

    @torch.no_grad()
    def predict(self, model: nn.Module, graphs: Sequence[Data]) -> tuple[Tensor, Tensor]:
        """What the model gives for each graph, and what it should."""
        pairs = [(model(batch), batch.y) for batch in DataLoader(graphs, self.batch_size)]
        outputs, targets = zip(*pairs, strict=True)
        return torch.cat(outputs), torch.cat(targets)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZINCTask(_GraphTask):
    """Predicts the constrained solubility of 12,000 molecules of ZINC (arXiv 2003.00982), by the mean absolute error.

    Encoders of GHNs take directed acyclic graphs without edge features: bonds become nodes between their atoms, and
    edges point from the atom of the lower number to that of the higher one.

    Args:
        folder: Where the data set lies, or is downloaded to.
        epochs: Passes over the training molecules.
        batch_size: Molecules in a step.
        learning_rate: Its largest value.
    """

    kind: ClassVar[str] = "zinc"
    sign: ClassVar[int] = -1
    folder: str = "data/ZINC"

    def run(self, ghn: GHNConfig, seed: int, folder: Path) -> dict[str, float]:
        """The mean absolute error on the test molecules."""
        parts = {
            part: [molecule_graph(data) for data in ZINC(self.folder, subset=True, split=part)]
            for part in ("train", "test")
        }
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model = GraphModel(ghn, _ATOMS + _BONDS, 1, Readout("mean"))
            self.fit(model, parts["train"], lambda output, y: F.l1_loss(output.flatten(), y), seed)
        output, y = self.predict(model, parts["test"])
        return {"MAE": F.l1_loss(output.flatten(), y).item()}


def molecule_graph(molecule: Data) -> Data:
    """A molecule as a directed acyclic graph whose bonds are nodes, in topological order.

    Args:
        molecule: Atom types ``x``, bonds ``edge_index`` in both directions, bond types ``edge_attr`` from 1 on, and
            ``y``.

    Example:
        >>> bond = Data(x=torch.tensor([[5], [2]]), edge_index=torch.tensor([[0, 1], [1, 0]]),
        ...             edge_attr=torch.tensor([1, 1]), y=torch.tensor([0.5]))
        >>> molecule_graph(bond).node_type.tolist(), molecule_graph(bond).edge_index.tolist()
        ([5, 29, 2], [[0, 1], [1, 2]])
    """
    bonds: dict[int, list[tuple[int, int]]] = {}
    for (low, high), kind in zip(molecule.edge_index.t().tolist(), molecule.edge_attr.flatten().tolist(), strict=True):
        if low < high:
            bonds.setdefault(high, []).append((low, kind))
    types: list[int] = []
    edges: list[tuple[int, int]] = []
    place: dict[int, int] = {}
    for atom, kind in enumerate(molecule.x.flatten().tolist()):
        before = sorted(bonds.get(atom, []))
        place[atom] = len(types) + len(before)
        for low, bond in before:
            edges += [(place[low], len(types)), (len(types), place[atom])]
            types.append(_ATOMS + bond)
        types.append(kind)
    return acyclic(types, edges, molecule.y.flatten()[:1])


def acyclic(types: Sequence[int], edges: Sequence[tuple[int, int]], y: Tensor) -> Data:
    """A graph with distances, as encoders take it."""
    edge_index = torch.tensor(edges, dtype=torch.long).view(-1, 2).t().contiguous()
    distance = shortest_paths(edge_index, len(types)).flatten()
    return Data(node_type=torch.tensor(types), edge_index=edge_index, distance=distance, num_nodes=len(types), y=y)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LongRangeTask(_GraphTask):
    """Tells at the end of a long chain which key it began with; keys all along it, and on side branches, distract.

    Layers that pass messages to neighbours know nothing of a node further away than their number; attention must find
    the right one of many by its place in the graph. Chance is 25 %.

    Args:
        graphs: Number of training graphs; a quarter as many are for the test.
        shortest: Nodes of the shortest chain.
        longest: Nodes of the longest chain.
        epochs: Passes over the training graphs.
        batch_size: Graphs in a step.
        learning_rate: Its largest value.
    """

    kind: ClassVar[str] = "long_range"
    sign: ClassVar[int] = 1
    graphs: int = 2000
    shortest: int = 6
    longest: int = 40

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.graphs < _TESTED_OF:
            raise ValueError(f"LongRangeTask.graphs expected at least {_TESTED_OF}, got {self.graphs}")
        if not 2 <= self.shortest <= self.longest:
            raise ValueError(
                f"LongRangeTask.shortest expected a number from 2 to longest, got {self.shortest} and {self.longest}"
            )

    def run(self, ghn: GHNConfig, seed: int, folder: Path) -> dict[str, float]:
        """Accuracy on unseen graphs."""
        generator = torch.Generator().manual_seed(seed)
        count = self.graphs + self.graphs // _TESTED_OF
        made = [chain_graph(self.shortest, self.longest, generator) for _ in range(count)]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model = GraphModel(ghn, _KEYS, _KEYS, LastReadout())
            self.fit(model, made[: self.graphs], F.cross_entropy, seed)
        output, y = self.predict(model, made[self.graphs :])
        return {"accuracy": (output.argmax(1) == y).float().mean().item()}


def chain_graph(shortest: int, longest: int, generator: torch.Generator) -> Data:
    """A chain of keys with side branches of length one; its class is the first key.

    Example:
        >>> graph = chain_graph(5, 5, torch.Generator().manual_seed(0))
        >>> int(graph.y) == int(graph.node_type[0])
        True
    """
    length = int(torch.randint(shortest, longest + 1, (), generator=generator))
    branches = torch.rand(length, generator=generator) < 1 / math.e
    edges: list[tuple[int, int]] = []
    count, last = 1, 0
    for branch in branches[1:].tolist():
        if branch:
            edges.append((last, count))
            count += 1
        edges.append((last, count))
        last, count = count, count + 1
    keys = torch.randint(_KEYS, (count,), generator=generator).tolist()
    return acyclic(keys, edges, torch.tensor(keys[:1]))
