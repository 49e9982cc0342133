"""An encoder made of modules in PyTorch Geometric's calling style."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch_geometric.nn.inits import reset

from .blocks import Blocks

_ARGUMENTS: Final = ("edge_index", "edge_attr", "batch")


class ConvEncoder(nn.Module):
    r"""Graph convolutions, or any modules that are called as ``module(x, edge_index, …)``, as the encoder of a GHN.

    .. math::
        x \leftarrow x + \mathrm{ReLU}(f_l(\mathrm{LN}(x), \ldots)), \qquad l = 1, \ldots, L

    Messages go along the edges and against them; ``edge_attr`` is a trained embedding of the direction, for modules
    that take edge features. Modules must treat every graph of a batch independently: no batch norms.

    Args:
        channels: Width :math:`d`, of nodes and of edge features.
        modules: The modules :math:`f_l`, which keep the width.
        arguments: Keyword arguments that they are called with, of ``edge_index``, ``edge_attr`` and ``batch``; by
            default those in the signature of each module's ``forward``.

    Shapes:
        - **input:** nodes :math:`(N, d)`, edges :math:`(2, E)`, distances (not used) and the graph ``batch``
          :math:`(N,)` of each node (one graph by default)
        - **output:** nodes :math:`(N, d)`

    Raises:
        ValueError: If there are no modules, one contains a batch norm or changes the width, or ``arguments`` contains
            another name.
        TypeError: If ``modules`` is a single module.

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
                    f"modules must not mix the graphs of a batch, got the batch norm {name}; leave it out, such as "
                    "with norm=None"
                )
        if unknown := [name for name in arguments or () if name not in _ARGUMENTS]:
            raise ValueError(f"arguments expected some of {', '.join(_ARGUMENTS)}, got {', '.join(unknown)}")
        self.arguments = [_in_signature(layer) if arguments is None else tuple(arguments) for layer in self.layers]
        self.direction = nn.Embedding(2, channels) if any("edge_attr" in names for names in self.arguments) else None
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in self.layers)

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        for part in self.children():
            reset(part)

    def forward(
        self, x: Tensor, edge_index: Tensor, distance: Tensor | None = None, batch: Tensor | Blocks | None = None
    ) -> Tensor:
        """Encodes the nodes of one or more graphs."""
        given: dict[str, Tensor | None] = {"edge_index": torch.cat((edge_index, edge_index.flip(0)), dim=1)}
        if self.direction is not None:
            given["edge_attr"] = self.direction.weight.repeat_interleave(edge_index.size(1), dim=0)
        given["batch"] = batch.vector(x.device) if isinstance(batch, Blocks) else batch
        for norm, layer, arguments in zip(self.norms, self.layers, self.arguments, strict=True):
            update = layer(norm(x), **{name: given[name] for name in arguments})
            if not isinstance(update, Tensor) or update.shape != x.shape:
                shape = tuple(update.shape) if isinstance(update, Tensor) else type(update).__name__
                raise ValueError(f"{type(layer).__name__} expected to return nodes {tuple(x.shape)}, got {shape}")
            x = x + update.relu()
        return x


def _in_signature(layer: nn.Module) -> tuple[str, ...]:
    parameters = inspect.signature(layer.forward).parameters
    return tuple(name for name in _ARGUMENTS if name in parameters)
