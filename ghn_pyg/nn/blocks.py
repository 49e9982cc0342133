"""Batches of graphs of different size, computed in dense blocks with little padding."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

_MAX_PADDED: Final = 128
_PADDING_STEP: Final = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """Graphs of a batch that are computed side by side, padded to the same number of nodes.

    Args:
        graphs: Positions of the graphs in the batch.
        size: Number of nodes :math:`n` that each of the :math:`G` graphs is padded to.
        start: The first node and the first pair of nodes, for graphs of equal size that are consecutive in the batch.
        rows: Otherwise the node of each slot, of shape :math:`(G, n)`; padding repeats the graph's first node.
        pairs: Otherwise the first pair and the size of each graph, of shape :math:`(G, 2)`.
        mask: Which slots are nodes and not padding, of shape :math:`(G, n)`; ``None`` without padding.
    """

    graphs: list[int]
    size: int
    start: tuple[int, int] = (0, 0)
    rows: Tensor | None = None
    pairs: Tensor | None = None
    mask: Tensor | None = None

    def split(self, x: Tensor) -> Tensor:
        """The nodes of the block: :math:`(N, *)` → :math:`(G, n, *)`, as a view where possible."""
        slots = len(self.graphs) * self.size
        part = x.narrow(0, self.start[0], slots) if self.rows is None else x.index_select(0, self.rows.flatten())
        return part.unflatten(0, (len(self.graphs), self.size))

    def split_pairs(self, values: Tensor) -> Tensor:
        r"""Values of pairs of nodes: :math:`(\sum_g N_g^2, *)` → :math:`(G, n, n, *)`; padding is undefined."""
        shape = (len(self.graphs), self.size, self.size)
        if self.rows is None or self.pairs is None:
            part = values.narrow(0, self.start[1], shape[0] * shape[1] * shape[2])
        else:
            node = self.rows - self.rows[:, :1]
            first, size = self.pairs[:, None].unbind(-1)
            index = (first + node * size)[:, :, None] + node[:, None]
            part = values.index_select(0, index.flatten())
        return part.unflatten(0, shape)

    def fill_padding(self, pairs: Tensor, value: float) -> Tensor:
        """Sets pairs of shape (*, G, n, n) to a value where the key (the second node) is padding."""
        return pairs if self.mask is None else pairs.masked_fill(~self.mask[:, None], value)


@dataclasses.dataclass(frozen=True, eq=False)
class Blocks:
    r"""How a batch of graphs is arranged in dense blocks.

    Graphs of up to 128 nodes share a block with graphs of the same size rounded up to a multiple of 16, larger graphs
    with graphs of exactly their size. Nothing is copied where graphs of a block are consecutive and of equal size.
    Layers build it from the vector ``batch``; build it once if you call several layers.

    Args:
        sizes: Number of nodes of each graph.
        blocks: The blocks.
        order: The position of each node in the concatenation of all blocks; ``None`` if it is unchanged.
        device: Device of the blocks' tensors.

    Example:
        >>> blocks = Blocks.of(torch.tensor([0, 0, 0, 1, 1]), num_nodes=5)
        >>> blocks.sizes, [block.mask.tolist() for block in blocks]
        ([3, 2], [[[True, True, True], [True, True, False]]])
    """

    sizes: list[int]
    blocks: list[Block]
    order: Tensor | None = None
    device: torch.device | str = "cpu"

    @classmethod
    def of(cls, batch: Tensor | Blocks | None, num_nodes: int) -> Blocks:
        """The blocks of a batch.

        Args:
            batch: The graph of each node, ascending, as in PyTorch Geometric; ``None`` for one graph; or the blocks.
            num_nodes: Number of nodes.

        Raises:
            ValueError: If the batch is empty, not ascending, not integer, or of another number of nodes.
            TypeError: If it is neither a tensor nor blocks.
        """
        if not num_nodes:
            raise ValueError("expected a batch with nodes, got none")
        if batch is None:
            return cls.of_sizes([num_nodes])
        if not isinstance(batch, (Tensor, Blocks)):
            raise TypeError(f"batch expected the graph of each node, such as data.batch, got {type(batch).__name__}")
        count = sum(batch.sizes) if isinstance(batch, Blocks) else batch.numel()
        if count != num_nodes:
            raise ValueError(f"the batch has {count} nodes and x has {num_nodes}; pass the batch of these nodes")
        if isinstance(batch, Blocks):
            return batch
        if batch.dim() != 1 or batch.is_floating_point() or batch.dtype == torch.bool:
            raise ValueError(f"batch expected integers of shape (N,), got {batch.dtype} of {tuple(batch.shape)}")
        graphs = to_numpy(batch)
        if graphs[0] < 0 or (graphs[1:] < graphs[:-1]).any():
            raise ValueError("batch expected ascending numbers from 0; sort the nodes by their graph")
        return cls.of_sizes(np.bincount(graphs).tolist(), batch.device)

    @classmethod
    def of_batch(cls, batch: Tensor | Blocks) -> Blocks:
        """The blocks of a batch that is given, not ``None``.

        Raises:
            TypeError: If it is ``None``: the number of nodes is not known then.
        """
        if isinstance(batch, Blocks):
            return batch
        if not isinstance(batch, Tensor):
            raise TypeError(
                f"batch expected the graph of each node, or Blocks, got {type(batch).__name__}; for a single graph "
                "pass Blocks.of(None, num_nodes)"
            )
        return cls.of(batch, batch.numel())

    @classmethod
    def of_sizes(cls, sizes: Sequence[int], device: torch.device | str = "cpu") -> Blocks:
        """The blocks of graphs of these sizes."""
        groups: dict[int, list[int]] = {}
        for graph, size in enumerate(sizes):
            if size:
                padded = -(-size // _PADDING_STEP) * _PADDING_STEP if size <= _MAX_PADDED else size
                groups.setdefault(padded, []).append(graph)
        return cls._of_groups(list(sizes), groups.values(), device)

    @classmethod
    def _of_groups(cls, sizes: list[int], groups: Iterable[list[int]], device: torch.device | str) -> Blocks:
        count = np.array(sizes, dtype=np.int64)
        starts, squares = np.cumsum(count) - count, np.cumsum(count**2) - count**2
        order, blocks, slots = np.empty(count.sum(), dtype=np.int64), [], 0
        for graphs in groups:
            size = int(count[graphs].max())
            mask = np.arange(size) < count[graphs, None]
            rows = starts[graphs, None] + np.where(mask, np.arange(size), 0)
            order[rows[mask]] = slots + mask.ravel().nonzero()[0]
            slots += rows.size
            if mask.all() and all(after == graph + 1 for graph, after in itertools.pairwise(graphs)):
                blocks.append(Block(graphs, size, (int(starts[graphs[0]]), int(squares[graphs[0]]))))
                continue
            pairs = np.stack((squares[graphs], count[graphs]), axis=1)
            on_device = [torch.from_numpy(array).to(device) for array in (rows, pairs, mask)]
            blocks.append(Block(graphs, size, (0, 0), on_device[0], on_device[1], None if mask.all() else on_device[2]))
        moved = slots != len(order) or (order != np.arange(len(order))).any()
        return cls(sizes, blocks, torch.from_numpy(order).to(device) if moved else None, device)

    def __iter__(self) -> Iterator[Block]:
        return iter(self.blocks)

    def split(self, x: Tensor) -> list[Tensor]:
        """The nodes of each block: :math:`(N, *)` → :math:`(G, n, *)`."""
        return [block.split(x) for block in self.blocks]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """The inverse of :meth:`split`."""
        flat = [part.flatten(0, 1) for part in parts]
        joined = flat[0] if len(flat) == 1 else torch.cat(flat)
        return joined if self.order is None else joined.index_select(0, self.order)

    def split_pairs(self, values: Tensor) -> list[Tensor]:
        r"""Values of all pairs of nodes of each graph: :math:`(\sum_g N_g^2, *)` → :math:`(G, n, n, *)` per block.

        Raises:
            ValueError: If their number is another.
        """
        pairs = sum(size * size for size in self.sizes)
        if values.size(0) != pairs:
            raise ValueError(f"expected a value for each of {pairs} pairs of nodes, got {values.size(0)}")
        return [block.split_pairs(values) for block in self.blocks]

    def biases(self, values: Tensor) -> list[Tensor]:
        r"""Your own attention biases, for every block.

        Args:
            values: The bias of every pair (query, key) of each graph for each head, :math:`(\sum_g N_g^2, H)`.

        Returns:
            Biases of shape :math:`(G, H, n, n)`, :math:`-\infty` where the key is padding.
        """
        parts = zip(self.blocks, self.split_pairs(values), strict=True)
        return [block.fill_padding(part.movedim(-1, 0), -torch.inf).transpose(0, 1) for block, part in parts]

    def vector(self, device: torch.device | str = "cpu") -> Tensor:
        """The graph of each node, as PyTorch Geometric's ``batch``."""
        return torch.arange(len(self.sizes), device=device).repeat_interleave(torch.tensor(self.sizes, device=device))

    def with_tokens(self) -> Blocks:
        """The blocks after each graph got one more node in front of its own; graphs without nodes come last."""
        groups = [block.graphs for block in self.blocks]
        if empty := [graph for graph, size in enumerate(self.sizes) if not size]:
            groups.append(empty)
        return self._of_groups([size + 1 for size in self.sizes], groups, self.device)


def distance_matrices(distance: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Each graph's distance matrix, as a view."""
    parts = distance.split([size * size for size in sizes])
    return [part.view(size, size) for part, size in zip(parts, sizes, strict=True)]


class _ToNumPy(torch.autograd.Function):
    @staticmethod
    def forward(tensor: Tensor) -> np.ndarray:
        return tensor.cpu().numpy()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Integers have no gradients."""


def to_numpy(tensor: Tensor) -> np.ndarray:
    """A tensor of integers as an array, inside :func:`torch.func.grad` too, where ``tensor.numpy()`` fails."""
    array: np.ndarray = _ToNumPy.apply(tensor)
    return array
