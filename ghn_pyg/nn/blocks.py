"""Batches of graphs of different size, computed in dense blocks with little padding."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

from ..utils.compat import has_plain_values, outside_of_modes, unwrap_functorch

_MAX_PADDED: Final = 128
_PADDING_STEP: Final = 16
_GRAPHS_PER_BLOCK: Final = 8
_MAX_BLOCKS: Final = 3
"""Of many small graphs: their number alone decides how many blocks there are, so that compilers see the same code."""

Layout = Literal["grouped", "padded"]


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """Graphs of a batch that are computed side by side, padded to the same number of nodes.

    Args:
        graphs: Positions of the graphs in the batch.
        count: Number :math:`G` of graphs.
        size: Number of nodes :math:`n` that each graph is padded to.
        start: The first node and the first pair of nodes, for graphs of equal size that are consecutive in the batch.
        rows: Otherwise the node of each slot, of shape :math:`(G, n)`; padding repeats the graph's first node.
        pairs: Otherwise the first pair and the size of each graph, of shape :math:`(G, 2)`.
        mask: Which slots are nodes and not padding, of shape :math:`(G, n)`; ``None`` without padding.
    """

    graphs: Sequence[int]
    count: int
    size: int
    start: tuple[int, int] = (0, 0)
    rows: Tensor | None = None
    pairs: Tensor | None = None
    mask: Tensor | None = None

    def split(self, x: Tensor) -> Tensor:
        """The nodes of the block: :math:`(N, *)` → :math:`(G, n, *)`, as a view where possible."""
        if self.rows is None:
            part = x.narrow(0, self.start[0], self.count * self.size)
        else:
            part = x.index_select(0, self.rows.flatten())
        return part.unflatten(0, (self.count, self.size))

    def split_pairs(self, values: Tensor) -> Tensor:
        r"""Values of pairs of nodes: :math:`(\sum_g N_g^2, *)` → :math:`(G, n, n, *)`; padding is undefined."""
        shape = (self.count, self.size, self.size)
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

    With the layout ``"grouped"``, graphs of up to 128 nodes share a block with graphs of about their size, larger
    graphs with graphs of exactly their size. Nothing is copied where graphs of a block are consecutive and of equal
    size. Layers build it from the vector ``batch``; build it once if you call several layers.

    With the layout ``"padded"`` there is one block of all graphs, padded to the largest one, rounded up to a multiple
    of 16. It is computed by tensors alone: ``torch.compile(…, fullgraph=True, dynamic=True)`` and ``torch.export`` take
    it with any number of nodes and graphs.

    Args:
        counts: Number of nodes of each graph, :math:`(G,)`.
        blocks: The blocks.
        num_nodes: Number of nodes.
        order: The position of each node in the concatenation of all blocks; ``None`` if it is unchanged.
        layout: The layout.

    Example:
        >>> blocks = Blocks.of(torch.tensor([0, 0, 0, 1, 1]), num_nodes=5)
        >>> blocks.sizes, [block.mask.tolist() for block in blocks]
        ([3, 2], [[[True, True, True], [True, True, False]]])
        >>> Blocks.of(torch.tensor([0, 0, 0, 1, 1]), num_nodes=5, batch_size=3).sizes
        [3, 2, 0]
        >>> [block.size for block in Blocks.of(torch.tensor([0, 0, 0, 1, 1]), num_nodes=5, layout="padded")]
        [16]
    """

    counts: Tensor
    blocks: list[Block]
    num_nodes: int
    order: Tensor | None = None
    layout: Layout = "grouped"

    @functools.cached_property
    def sizes(self) -> list[int]:
        """Number of nodes of each graph."""
        sizes: list[int] = to_numpy(self.counts).tolist()
        return sizes

    @property
    def batch_size(self) -> int:
        """Number of graphs, with those that have no nodes."""
        return self.counts.size(0)

    @classmethod
    def of(
        cls,
        batch: Tensor | Blocks | None,
        num_nodes: int,
        batch_size: int | None = None,
        layout: Layout = "grouped",
        size: int | None = None,
    ) -> Blocks:
        """The blocks of a batch.

        Args:
            batch: The graph of each node, ascending, as in PyTorch Geometric; ``None`` for one graph; or the blocks.
            num_nodes: Number of nodes.
            batch_size: Number of graphs; by default graphs without nodes at the end are left out.
            layout: ``"grouped"`` or ``"padded"``.
            size: Number of nodes that graphs are padded to, for the layout ``"padded"``.

        Raises:
            ValueError: If the batch is empty, not ascending, not integer, or of another number of nodes or graphs.
            TypeError: If it is neither a tensor nor blocks.
        """
        if not num_nodes:
            raise ValueError("expected a batch with nodes, got none")
        if layout not in ("grouped", "padded"):
            raise ValueError(f"layout expected 'grouped' or 'padded', got {layout!r}")
        if isinstance(batch, Blocks):
            if batch.num_nodes != num_nodes:
                raise ValueError(
                    f"the batch has {batch.num_nodes} nodes and x has {num_nodes}; pass the batch of these nodes"
                )
            if batch_size is not None and batch_size != batch.batch_size:
                raise ValueError(f"batch_size expected {batch.batch_size}, as the blocks have, got {batch_size}")
            return batch
        if batch is None and layout == "grouped" and batch_size in (None, 1):
            # Without arrays: the number of nodes may be a symbol of a compiler.
            return cls(torch.full((1,), num_nodes), [Block([0], 1, num_nodes)], num_nodes)
        if batch is None:
            batch = torch.zeros(num_nodes, dtype=torch.long)
        if not isinstance(batch, Tensor):
            raise TypeError(f"batch expected the graph of each node, such as data.batch, got {type(batch).__name__}")
        if batch.numel() != num_nodes:
            raise ValueError(
                f"the batch has {batch.numel()} nodes and x has {num_nodes}; pass the batch of these nodes"
            )
        if batch.dim() != 1 or batch.is_floating_point() or batch.dtype == torch.bool:
            raise ValueError(f"batch expected integers of shape (N,), got {batch.dtype} of {tuple(batch.shape)}")
        readable = layout == "grouped" or (has_plain_values(batch) and batch.device.type == "cpu")
        if readable:
            graphs = to_numpy(batch)
            if graphs[0] < 0 or (graphs[1:] < graphs[:-1]).any():
                raise ValueError("batch expected ascending numbers from 0; sort the nodes by their graph")
            if batch_size is not None and graphs[-1] >= batch_size:
                raise ValueError(f"batch_size expected at least {graphs[-1] + 1}, as the batch has, got {batch_size}")
        if layout == "grouped":
            return cls.of_sizes(np.bincount(graphs, minlength=batch_size or 0).tolist(), batch.device)
        count = int(batch[-1]) + 1 if batch_size is None else batch_size
        counts = batch.new_zeros(count, dtype=torch.long).scatter_add(0, batch.long(), torch.ones_like(batch).long())
        return cls._padded(counts, batch.long(), size)

    @classmethod
    def of_batch(cls, batch: Tensor | Blocks, batch_size: int | None = None) -> Blocks:
        """The blocks of a batch that is given, not ``None``.

        Raises:
            TypeError: If it is ``None``: the number of nodes is not known then.
        """
        if not isinstance(batch, (Tensor, Blocks)):
            raise TypeError(
                f"batch expected the graph of each node, or Blocks, got {type(batch).__name__}; for a single graph "
                "pass Blocks.of(None, num_nodes)"
            )
        return cls.of(batch, batch.numel() if isinstance(batch, Tensor) else batch.num_nodes, batch_size)

    @classmethod
    def of_sizes(cls, sizes: Sequence[int], device: torch.device | str = "cpu") -> Blocks:
        """The blocks of graphs of these sizes."""
        small = sorted((graph for graph, size in enumerate(sizes) if 0 < size <= _MAX_PADDED), key=sizes.__getitem__)
        part: dict[int, int] = {}
        if len(small) >= 2 * _GRAPHS_PER_BLOCK and sizes[small[0]] < sizes[small[-1]]:
            parts = np.array_split(small, min(_MAX_BLOCKS, len(small) // _GRAPHS_PER_BLOCK))
            part = {graph: -number for number, graphs in enumerate(parts) for graph in graphs.tolist()}
        groups: dict[int, list[int]] = {}
        for graph, size in enumerate(sizes):
            if size:
                padded = -(-size // _PADDING_STEP) * _PADDING_STEP if size <= _MAX_PADDED else size
                groups.setdefault(part.get(graph, padded), []).append(graph)
        return cls._of_groups(list(sizes), groups.values(), device)

    @classmethod
    def _of_groups(cls, sizes: list[int], groups: Iterable[Sequence[int]], device: torch.device | str) -> Blocks:
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
                start = (int(starts[graphs[0]]), int(squares[graphs[0]]))
                blocks.append(Block(graphs, len(graphs), size, start))
                continue
            pairs = np.stack((squares[graphs], count[graphs]), axis=1)
            tensors = [torch.from_numpy(array).to(device) for array in (rows, pairs, mask)]
            whole = mask.all() and len(graphs) < _GRAPHS_PER_BLOCK
            mask_of_nodes = None if whole else tensors[2]
            blocks.append(Block(graphs, len(graphs), size, (0, 0), tensors[0], tensors[1], mask_of_nodes))
        moved = slots != len(order) or (order != np.arange(len(order))).any()
        place = torch.from_numpy(order).to(device) if moved else None
        return cls(torch.from_numpy(count).to(device), blocks, len(order), place)

    @classmethod
    def _padded(cls, counts: Tensor, batch: Tensor, size: int | None) -> Blocks:
        """One block, by operations that compilers and exports follow."""
        num_nodes = batch.numel()
        if size is None:
            size = -(-int(counts.max()) // _PADDING_STEP) * _PADDING_STEP
        starts, squares = counts.cumsum(0) - counts, counts.square()
        slot = torch.arange(size, device=counts.device)
        mask = slot < counts.clamp(min=1)[:, None]  # a query without keys would be not a number
        rows = starts.clamp(max=num_nodes - 1)[:, None] + slot * mask
        rows = rows.clamp(max=num_nodes - 1)
        pairs = torch.stack((torch.minimum(squares.cumsum(0) - squares, squares.sum() - 1), counts), 1)
        order = batch * size + torch.arange(num_nodes, device=counts.device) - starts.index_select(0, batch)
        block = Block((), counts.size(0), size, (0, 0), rows, pairs, mask)
        return cls(counts, [block], num_nodes, order, "padded")

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
        self.check_pairs(values)
        return [block.split_pairs(values) for block in self.blocks]

    def check_pairs(self, values: Tensor) -> None:
        """Raises an error unless there is a value for each pair of nodes, where values of tensors may be read."""
        if len(self.blocks) == 1 and self.order is None:
            pairs = self.blocks[0].count * self.blocks[0].size ** 2
        elif has_plain_values(self.counts):
            pairs = sum(size * size for size in self.sizes)
        else:
            return
        if values.size(0) != pairs:
            raise ValueError(
                f"expected a value for each of {pairs} pairs of nodes, got {values.size(0)}; if nodes were dropped or "
                "added after the transform that computed the values, apply it again"
            )

    def biases(self, values: Tensor) -> list[Tensor]:
        r"""Your own attention biases, for every block.

        Args:
            values: The bias of every pair (query, key) of each graph for each head, :math:`(\sum_g N_g^2, H)`.

        Returns:
            Biases of shape :math:`(G, H, n, n)`, :math:`-\infty` where the key is padding.
        """
        parts = zip(self.blocks, self.split_pairs(values), strict=True)
        return [block.fill_padding(part.movedim(-1, 0), -torch.inf).transpose(0, 1) for block, part in parts]

    def vector(self, device: torch.device | str | None = None) -> Tensor:
        """The graph of each node, as PyTorch Geometric's ``batch``."""
        counts = self.counts if device is None else self.counts.to(device)
        graphs = torch.arange(counts.size(0), device=counts.device)
        return graphs.repeat_interleave(counts, output_size=self.num_nodes)

    def with_tokens(self) -> Blocks:
        """The blocks after each graph got one more node in front of its own; graphs without nodes come last."""
        if self.layout == "padded":
            counts, total = self.counts + 1, self.num_nodes + self.batch_size
            graphs = torch.arange(counts.size(0), device=counts.device)
            return self._padded(counts, graphs.repeat_interleave(counts, output_size=total), self.blocks[0].size + 1)
        if self.batch_size == 1 and self.num_nodes:
            return Blocks.of(None, self.num_nodes + 1)
        groups = [block.graphs for block in self.blocks]
        if empty := [graph for graph, size in enumerate(self.sizes) if not size]:
            groups.append(empty)
        return self._of_groups([size + 1 for size in self.sizes], groups, self.counts.device)


def distance_matrices(distance: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Each graph's distance matrix, as a view."""
    parts = distance.split([size * size for size in sizes])
    return [part.view(size, size) for part, size in zip(parts, sizes, strict=True)]


class _ToNumPy(torch.autograd.Function):
    """Compilers run it as it is, where they would translate a plain ``tensor.numpy()``."""

    @staticmethod
    def forward(tensor: Tensor) -> np.ndarray:
        return tensor.cpu().numpy()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Integers have no gradients."""


def to_numpy(tensor: Tensor) -> np.ndarray:
    """A tensor of integers as an array, inside transforms of functions too, where ``tensor.numpy()`` fails."""
    array: np.ndarray
    if torch.compiler.is_compiling():
        array = _ToNumPy.apply(tensor)
        return array
    while (inner := unwrap_functorch(tensor)) is not None:
        tensor = inner
    with outside_of_modes():
        array = tensor.cpu().numpy()
    return array
