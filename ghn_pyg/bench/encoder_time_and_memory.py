"""Time and memory of an encoder."""

from __future__ import annotations

import multiprocessing.context
import statistics
import timeit
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated, ClassVar, Final

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ..models import ENCODERS, GHNConfig
from ..transforms import shortest_paths
from .base_task import Task
from .peak_memory import peak_memory

_WARM_UP: Final = 2


class CostTask(Task):
    """Time and memory of a forward and backward pass on random graphs of several sizes.

    Each size is measured in a new process. Memory is the peak during the passes, minus what the process held before.

    Args:
        nodes: Nodes of a graph.
        graphs: Batch size.
        repeats: Number of passes, of which the median time is taken.
    """

    kind: ClassVar[str] = "cost"
    sign: ClassVar[int] = -1
    nodes: Annotated[tuple[PositiveInt, ...], Field(strict=False, min_length=1)] = (64, 256, 1024)
    graphs: PositiveInt = 1
    repeats: PositiveInt = 7

    def run(self, ghn: GHNConfig, seed: int, folder: Path) -> dict[str, float]:
        """Milliseconds and megabytes for each size."""
        results = {}
        for nodes in self.nodes:
            # The encoder is built here, as registered encoders are unknown in a new process.
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                encoder = ENCODERS[ghn.encoder].build(ghn)
            size = (nodes, self.graphs, ghn.hidden_channels, seed)
            with ProcessPoolExecutor(1, _clean_processes()) as pool:
                seconds, peak = pool.submit(_measure, encoder, size, self.repeats, torch.get_num_threads()).result()
            results[f"{nodes} nodes, ms"] = seconds * 1e3
            results[f"{nodes} nodes, MB"] = peak / 1e6
        return results


def _clean_processes() -> multiprocessing.context.BaseContext:
    """Starts processes without the memory of this one; where it can, from one that has imported this module."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _measure(encoder: nn.Module, size: tuple[int, int, int, int], repeats: int, threads: int) -> tuple[float, int]:
    """Median time of the passes in seconds, and their peak memory in bytes."""
    torch.set_num_threads(threads)
    _forward_backward(encoder, random_graphs(8, 2, *size[2:]))  # loads libraries
    inputs = random_graphs(*size)
    seconds: list[float] = []

    def timed_passes() -> None:
        seconds.extend(timeit.repeat(lambda: _forward_backward(encoder, inputs), number=1, repeat=_WARM_UP + repeats))

    peak = peak_memory(timed_passes)["over_baseline"]
    return statistics.median(seconds[_WARM_UP:]), peak


def random_graphs(nodes: int, graphs: int, channels: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A batch of chains with as many random shortcuts as nodes: the arguments of an encoder."""
    generator = torch.Generator().manual_seed(seed)
    edges, distances = [], []
    for graph in range(graphs):
        source = torch.arange(nodes - 1)
        jump = torch.randint(1, 17, (nodes - 1,), generator=generator)
        target = torch.cat((source + 1, (source + jump).clamp(max=nodes - 1)))
        edge_index = torch.stack((source.repeat(2), target)).unique(dim=1)
        edges.append(edge_index + graph * nodes)
        distances.append(shortest_paths(edge_index, nodes).flatten())
    x = torch.randn(graphs * nodes, channels, generator=generator)
    batch = torch.arange(graphs).repeat_interleave(nodes)
    return x, torch.cat(edges, 1), torch.cat(distances), batch


def _forward_backward(encoder: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    encoder.zero_grad(set_to_none=True)
    encoder(*inputs).square().mean().backward()
