"""Encoders made of modules in PyTorch Geometric's calling style."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from .ragged import Blocks

_ARGUMENTS: Final = ("edge_index", "edge_attr", "batch")


class ConvEncoder(nn.Module):
    r"""Graph convolutions, or any modules that are called as ``module(x, edge_index, …)``, as the encoder of a GHN.

    .. math::
        x \leftarrow x + \mathrm{ReLU}(f_l(\mathrm{LN}(x), \ldots)), \qquad l = 1, \ldots, L

    Messages go along the edges and against them; ``edge_attr`` is a trained embedding of the direction, which modules
    without edge features do not see. Modules must treat every graph of a batch as if it was alone: no batch norms.

    Args:
        channels: Width :math:`d`, of nodes and of edge features.
        modules: The modules :math:`f_l`, which keep the width.
        arguments: What they are given by name, of ``edge_index``, ``edge_attr`` and ``batch``; by default each what
            its ``forward`` names.

    Shapes:
        - **input:** nodes :math:`(N, d)`, edges :math:`(2, E)`, distances (not used) and for each node its graph
          ``batch`` :math:`(N,)` (one graph by default)
        - **output:** nodes :math:`(N, d)`

    Raises:
        ValueError: If there are no modules, some hold a batch norm or give another width, or ``arguments`` holds
            anything else.
        TypeError: If ``modules`` is a single one.

    Example:
        >>> from torch_geometric.nn import GATv2Conv
        >>> encoder = ConvEncoder(8, [GATv2Conv(8, 4, heads=2, edge_dim=8) for _ in range(3)])
        >>> encoder(torch.zeros(2, 8), torch.tensor([[0], [1]])).shape
        torch.Size([2, 8])
    """

    def __init__(self, channels: int, modules: Iterable[nn.Module], arguments: Sequence[str] | None = None) -> None:
        super().__init__()
        if isinstance(modules, nn.Module) and not isinstance(modules, (nn.ModuleList, nn.Sequential)):
            raise TypeError(f"modules expected a list of modules, one for each layer, got one {type(modules).__name__}")
        self.layers = nn.ModuleList(modules)
        if not self.layers:
            raise ValueError("ConvEncoder expected at least one module, got none")
        for name, part in self.layers.named_modules():
            if isinstance(part, (nn.BatchNorm1d, nn.SyncBatchNorm)):
                raise ValueError(
                    f"modules expected none that mix the graphs of a batch, got the batch norm {name}; leave it out, "
                    "as by norm=None"
                )
        if odd := [name for name in arguments or () if name not in _ARGUMENTS]:
            raise ValueError(f"arguments expected some of {', '.join(_ARGUMENTS)}, got {', '.join(odd)}")
        self.arguments = [_named(layer) if arguments is None else tuple(arguments) for layer in self.layers]
        self.direction = nn.Embedding(2, channels) if any("edge_attr" in one for one in self.arguments) else None
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in self.layers)

    def forward(
        self, x: Tensor, edge_index: Tensor, distance: Tensor | None = None, batch: Tensor | Blocks | None = None
    ) -> Tensor:
        """Encodes the nodes of one or more graphs."""
        given: dict[str, Tensor | None] = {"edge_index": torch.cat((edge_index, edge_index.flip(0)), dim=1)}
        if self.direction is not None:
            given["edge_attr"] = self.direction.weight.repeat_interleave(edge_index.size(1), dim=0)
        given["batch"] = batch.vector(x.device) if isinstance(batch, Blocks) else batch
        for norm, layer, arguments in zip(self.norms, self.layers, self.arguments, strict=True):
            found = layer(norm(x), **{name: given[name] for name in arguments})
            if not isinstance(found, Tensor) or found.shape != x.shape:
                shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise ValueError(f"{type(layer).__name__} expected to give nodes {tuple(x.shape)}, got {shape}")
            x = x + found.relu()
        return x


def _named(layer: nn.Module) -> tuple[str, ...]:
    named = inspect.signature(layer.forward).parameters
    return tuple(name for name in _ARGUMENTS if name in named)
