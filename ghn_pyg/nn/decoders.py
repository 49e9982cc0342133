"""Decoders: a node's embedding → the block that its parameters are tiled from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn.inits import reset

from .shared_weight_products import NARROW, leading_products

_STEP = 32

Kernel = tuple[int, int]
Crop = Literal["center", "corner"]


def crop_window(kernel: int, size: int, crop: Crop) -> slice:
    """The positions, of ``size``, that a kernel of that length takes: all if it is as long or longer."""
    if kernel >= size:
        return slice(0, size)
    start = max(0, size // 2 - kernel // 2) if crop == "center" else 0
    return slice(start, start + kernel)


class Group(NamedTuple):
    r"""Nodes from which weights of the same size are decoded.

    Args:
        nodes: Rows of the embeddings, :math:`n` of them.
        kernel: Height and width.
        out: Output channels :math:`o \le C`, or ``None`` for a classification layer, with one for each class.
        into: Input channels :math:`i \le C`.
    """

    nodes: Sequence[int]
    kernel: Kernel
    out: int | None
    into: int


def rounded_channels(channels: int, limit: int) -> int:
    """Rounds up to a multiple of 32, but for very small counts: larger products cost less than many narrow ones."""
    return channels if channels < NARROW else min(-(-channels // _STEP) * _STEP, limit)


def enlarge(weight: Tensor, kernel: Kernel) -> Tensor:
    """Bilinear interpolation of the last two dimensions to ``kernel``, if it is larger than they are."""
    if weight.shape[-2:] == kernel:
        return weight
    flat = F.interpolate(weight.flatten(0, -4), size=kernel, mode="bilinear", align_corners=False)
    return flat.view(*weight.shape[:-2], *kernel)


class _Decoder(nn.Module):
    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        for part in self.children():
            reset(part)


class ConvDecoder(_Decoder):
    r"""Decodes weights position by position (GHN-2, arXiv 2110.13100; GHN-3, arXiv 2303.04143).

    .. math::
        F = \mathrm{ReLU}(W_0 x + b_0) \in \mathbb{R}^{4d \times S \times S}, \qquad
        W_{\cdot\cdot rc} = W_2\, \mathrm{ReLU}(W_1 F_{\cdot rc} + b_1) + b_2 \in \mathbb{R}^{C \times C}

    at the positions :math:`(r, c)` of the kernel, and for a classification layer
    :math:`W_3\, \mathrm{ReLU}(W_{\cdot\cdot})` over the output channels of a 1×1 kernel. Only the positions and
    channels in use are computed. The weights :math:`W_0` and :math:`W_2` are read in place, and :math:`W_2` once for
    all groups.

    Args:
        channels: Width :math:`d` of the embeddings.
        max_channels: Channels :math:`C`.
        max_kernel_size: Kernel size :math:`S`.
        num_classes: Classes :math:`K`.
        crop: Part of the :math:`S \times S` map that a smaller kernel takes.

    Shapes:
        - **input:** embeddings :math:`(N, d)` and :class:`Group` s of nodes
        - **output:** blocks :math:`(n, o, i, h, w)` of each group; :math:`o = K` for classification layers

    Example:
        >>> groups = [Group([0, 2], (3, 3), 16, 5), Group([1], (1, 1), None, 7)]
        >>> [blocks.shape for blocks in ConvDecoder(8, 16, 11, 10)(torch.zeros(3, 8), groups)]
        [torch.Size([2, 16, 5, 3, 3]), torch.Size([1, 10, 7, 1, 1])]
    """

    def __init__(
        self, channels: int, max_channels: int, max_kernel_size: int, num_classes: int, crop: Crop = "center"
    ) -> None:
        super().__init__()
        self.max_channels = max_channels
        self.max_kernel_size = max_kernel_size
        self.crop: Crop = crop
        self.fc = nn.Linear(channels, 4 * channels * max_kernel_size**2)
        self.conv = nn.Sequential(
            nn.Linear(4 * channels, 8 * channels), nn.ReLU(), nn.Linear(8 * channels, max_channels**2)
        )
        self.classifier = nn.Linear(max_channels, num_classes)

    def last_layers(self) -> list[nn.Linear]:
        """The layers that compute the blocks."""
        return [cast(nn.Linear, self.conv[2]), self.classifier]

    def features(self, x: Tensor, kernel: Kernel) -> Tensor:
        """The last layer's input at each position: (n, d) → (n, positions, 8d)."""
        size = self.max_kernel_size
        window = tuple(crop_window(length, size, self.crop) for length in kernel)
        weight = self.fc.weight.view(-1, size, size, x.size(1))[:, window[0], window[1]]
        bias = self.fc.bias.view(-1, size, size, 1)[:, window[0], window[1]]
        rows = [  # row by row: the positions of one row are evenly spaced in memory
            torch.baddbmm(bias[:, r].permute(1, 2, 0), x.expand(weight.size(2), -1, -1), weight[:, r].permute(1, 2, 0))
            for r in range(weight.size(1))
        ]
        maps = torch.cat(rows).relu_().transpose(0, 1)
        return F.relu(self.conv[0](maps))

    def forward(self, x: Tensor, groups: Sequence[Group]) -> list[Tensor]:
        """Decodes the blocks of each group."""
        last, size = cast(nn.Linear, self.conv[2]), self.max_channels
        shapes = [(size if group.out is None else group.out, group.into) for group in groups]
        projected = leading_products(
            last.weight.view(size, size, -1),
            last.bias.view(size, size),
            [features.flatten(0, 1) for features in self._features_by_group(x, groups)],
            [(rounded_channels(out, size), rounded_channels(into, size)) for out, into in shapes],
        )
        cut = (result[:out, :into] for result, (out, into) in zip(projected, shapes, strict=True))
        return [self._blocks(result, group) for result, group in zip(cut, groups, strict=True)]

    def _features_by_group(self, x: Tensor, groups: Sequence[Group]) -> list[Tensor]:
        """Features of each group; groups of one kernel size share a product."""
        features: dict[int, Tensor] = {}
        for kernel in dict.fromkeys(group.kernel for group in groups):
            same = [position for position, group in enumerate(groups) if group.kernel == kernel]
            nodes = [node for position in same for node in groups[position].nodes]
            parts = self.features(x[nodes], kernel).split([len(groups[position].nodes) for position in same])
            features.update(zip(same, parts, strict=True))
        return [features[position] for position in range(len(groups))]

    def _blocks(self, projected: Tensor, group: Group) -> Tensor:
        """(o, i, n · positions) → (n, o, i, h, w)."""
        window = tuple(min(length, self.max_kernel_size) for length in group.kernel)
        blocks = projected.unflatten(2, (-1, *window)).permute(2, 0, 1, 3, 4)
        if group.out is None:
            blocks = self.classifier(blocks.relu().transpose(1, 4)).transpose(1, 4)
        return enlarge(blocks, group.kernel)


class MLPDecoder(_Decoder):
    r"""Decodes all weights at once, :math:`W_1\, \mathrm{ReLU}(W_0 x + b_0) + b_1`: an ablation of arXiv 2110.13100.

    A classification layer has a last layer of its own, :math:`W_2 \in \mathbb{R}^{K C \times 2d}`.

    Args:
        channels: Width :math:`d` of the embeddings.
        max_channels: Channels :math:`C`.
        max_kernel_size: Kernel size :math:`S`.
        num_classes: Classes :math:`K`.
        crop: Part of the :math:`S \times S` map that a smaller kernel takes.

    Shapes:
        - **input:** embeddings :math:`(N, d)` and :class:`Group` s of nodes
        - **output:** blocks :math:`(n, o, i, h, w)` of each group; :math:`o = K` for classification layers

    Example:
        >>> [blocks.shape for blocks in MLPDecoder(8, 16, 11, 10)(torch.zeros(3, 8), [Group([1], (1, 1), None, 7)])]
        [torch.Size([1, 10, 7, 1, 1])]
    """

    def __init__(
        self, channels: int, max_channels: int, max_kernel_size: int, num_classes: int, crop: Crop = "center"
    ) -> None:
        super().__init__()
        self.max_channels = max_channels
        self.max_kernel_size = max_kernel_size
        self.crop: Crop = crop
        self.fc = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.ReLU(), nn.Linear(2 * channels, (max_channels * max_kernel_size) ** 2)
        )
        self.classifier = nn.Linear(2 * channels, num_classes * max_channels)

    def last_layers(self) -> list[nn.Linear]:
        """The layers that compute the blocks."""
        return [cast(nn.Linear, self.fc[2]), self.classifier]

    def forward(self, x: Tensor, groups: Sequence[Group]) -> list[Tensor]:
        """Decodes the blocks of each group."""
        hidden = F.relu(self.fc[0](x))
        return [self._blocks(hidden[list(group.nodes)], group) for group in groups]

    def _blocks(self, hidden: Tensor, group: Group) -> Tensor:
        """(n, 2d) → (n, o, i, h, w)."""
        channels, size, last = self.max_channels, self.max_kernel_size, cast(nn.Linear, self.fc[2])
        if group.out is None:
            flat = self.classifier(hidden).view(len(hidden), -1, channels, 1, 1)
            return enlarge(flat[:, :, : group.into], group.kernel)
        rows, columns = (crop_window(length, size, self.crop) for length in group.kernel)
        weight = last.weight.view(channels, channels, size, size, -1)[: group.out, : group.into, rows, columns]
        bias = last.bias.view(channels, channels, size, size)[: group.out, : group.into, rows, columns]
        flat = F.linear(hidden, weight.flatten(0, 3), bias.flatten())
        return enlarge(flat.view(-1, *weight.shape[:-1]), group.kernel)


class VectorDecoder(_Decoder):
    r"""Decodes vectors, :math:`W_1\, \mathrm{ReLU}(W_0 x + b_0) + b_1 \in \mathbb{R}^{2 \times C}`.

    Row 0 is a norm's gain, row 1 a norm's or layer's bias. From arXiv 2110.13100.

    Args:
        channels: Width :math:`d` of the embeddings.
        max_channels: Channels :math:`C`.
        num_classes: Classes :math:`K`.

    Shapes:
        - **input:** embeddings :math:`(n, d)`
        - **output:** gains and biases :math:`(n, 2, C)`

    Example:
        >>> VectorDecoder(8, 16, 10)(torch.zeros(3, 8)).shape
        torch.Size([3, 2, 16])
    """

    def __init__(self, channels: int, max_channels: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(channels, 2 * channels), nn.ReLU(), nn.Linear(2 * channels, 2 * max_channels))
        self.classifier = nn.Linear(max_channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Decodes gains and biases."""
        return self.fc(x).view(x.size(0), 2, -1)

    def last_layers(self) -> list[nn.Linear]:
        """The layers that compute the blocks."""
        return [cast(nn.Linear, self.fc[2])]

    def classify(self, x: Tensor) -> Tensor:
        """Decodes biases of classification layers, of shape (n, K)."""
        return self.classifier(F.relu(self(x)[:, 1]))
