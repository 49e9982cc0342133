"""What an encoder costs."""

from __future__ import annotations

import dataclasses
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import ClassVar, Final

import torch
from torch import Tensor, nn

from ..models.config import GHNConfig
from ..models.encoders import ENCODERS
from ..transforms import shortest_paths
from .checks import check_task
from .peak_memory import peak_memory

_WARM: Final = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class CostTask:
    """Time and memory of a forward and a backward pass on graphs of several sizes.

    Each graph is measured in a process of its own; memory is what the passes add, at their highest point, to what it
    holds before. Graphs are chains with as many shortcuts as nodes.

    Args:
        nodes: Sizes of the graphs.
        graphs: Graphs in a batch.
        repeats: How many passes the time is the median of.
    """

    kind: ClassVar[str] = "cost"
    sign: ClassVar[int] = -1
    nodes: tuple[int, ...] = (64, 256, 1024)
    graphs: int = 1
    repeats: int = 7

    def __post_init__(self) -> None:
        check_task(self)

    def run(self, ghn: GHNConfig, seed: int, folder: Path) -> dict[str, float]:
        """Milliseconds and megabytes for each size."""
        found = {}
        for nodes in self.nodes:
            # The encoder is made here: a new process knows nothing of those that users registered.
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                encoder = ENCODERS[ghn.encoder].build(ghn)
            arguments = (encoder, ghn.hidden_channels, nodes, self.graphs, self.repeats, seed, torch.get_num_threads())
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                seconds, peak = pool.submit(passes, *arguments).result()
            found[f"{nodes} nodes, ms"] = seconds * 1e3
            found[f"{nodes} nodes, MB"] = peak / 1e6
        return found


def passes(
    encoder: nn.Module, channels: int, nodes: int, graphs: int, repeats: int, seed: int, threads: int
) -> tuple[float, int]:
    """The median time of a forward and backward pass in seconds, and by how many bytes memory grew at most."""
    torch.set_num_threads(threads)
    _pass(encoder, batch(8, 2, channels, seed))  # what is loaded once does not count
    inputs = batch(nodes, graphs, channels, seed)
    seconds: list[float] = []

    def repeat() -> None:
        for _ in range(_WARM + repeats):
            start = time.perf_counter()
            _pass(encoder, inputs)
            seconds.append(time.perf_counter() - start)

    grown = peak_memory(repeat)["over_baseline"]
    return statistics.median(seconds[_WARM:]), grown


def batch(nodes: int, graphs: int, channels: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random states of chains with shortcuts, as an encoder's arguments."""
    generator = torch.Generator().manual_seed(seed)
    edges, distances = [], []
    for graph in range(graphs):
        start = torch.arange(nodes - 1)
        jump = torch.randint(1, 17, (nodes - 1,), generator=generator)
        after = torch.cat((start + 1, (start + jump).clamp(max=nodes - 1)))
        ends = torch.stack((start.repeat(2), after)).unique(dim=1)
        edges.append(ends + graph * nodes)
        distances.append(shortest_paths(ends, nodes).flatten())
    x = torch.randn(graphs * nodes, channels, generator=generator)
    vector = torch.arange(graphs).repeat_interleave(nodes)
    return x, torch.cat(edges, 1), torch.cat(distances), vector


def _pass(encoder: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    encoder.zero_grad(set_to_none=True)
    encoder(*inputs).square().mean().backward()
