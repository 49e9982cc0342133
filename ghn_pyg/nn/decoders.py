"""Decoders: a node's embedding → the block of numbers that its parameters are tiled from."""

from __future__ import annotations

from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Kernel = tuple[int, int]
Crop = Literal["center", "corner"]


def crop_window(kernel: int, size: int, crop: Crop) -> slice:
    """Which of ``size`` positions a kernel of that length takes; all of them when it is as long or longer."""
    if kernel >= size:
        return slice(0, size)
    start = max(0, size // 2 - kernel // 2) if crop == "center" else 0
    return slice(start, start + kernel)


def enlarge(weight: Tensor, kernel: Kernel) -> Tensor:
    """Bilinear interpolation of the last two dimensions to ``kernel`` where it is larger than what was decoded."""
    if weight.shape[-2:] == kernel:
        return weight
    flat = F.interpolate(weight.flatten(0, -4), size=kernel, mode="bilinear", align_corners=False)
    return flat.view(*weight.shape[:-2], *kernel)


class ConvDecoder(nn.Module):
    r"""Decodes weights position by position (GHN-2, arXiv 2110.13100; GHN-3, arXiv 2303.04143).

    .. math::
        F = \mathrm{ReLU}(W_0 x + b_0) \in \mathbb{R}^{4d \times S \times S}, \qquad
        W_{\cdot\cdot rc} = W_2\, \mathrm{ReLU}(W_1 F_{\cdot rc} + b_1) + b_2 \in \mathbb{R}^{C \times C}

    at the positions :math:`(r, c)` of the kernel. Only the positions and channels in use are computed: rows of
    :math:`W_0` and blocks of :math:`W_2` are read in place.

    Args:
        channels: Width :math:`d` of the embeddings.
        max_channels: Channels :math:`C`.
        max_kernel_size: Kernel size :math:`S`.
        num_classes: Classes :math:`K`.
        crop: Which part of the :math:`S \times S` map a smaller kernel is.

    Shapes:
        - **input:** embeddings :math:`(n, d)` of nodes of one kernel size :math:`(h, w)`
        - **output:** blocks :math:`(n, o, i, h, w)` with :math:`o, i \le C`

    Example:
        >>> ConvDecoder(8, 16, 11, 10)(torch.zeros(2, 8), (3, 3), 16, 5).shape
        torch.Size([2, 16, 5, 3, 3])
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

    def features(self, x: Tensor, kernel: Kernel) -> Tensor:
        """What the last layer sees, of shape (n, positions, 8d)."""
        size = self.max_kernel_size
        rows, columns = (crop_window(length, size, self.crop) for length in kernel)
        weight = self.fc.weight.view(-1, size, size, x.size(1))[:, rows, columns]
        bias = self.fc.bias.view(-1, size, size)[:, rows, columns]
        maps = F.linear(x, weight.flatten(0, 2), bias.flatten()).relu_()
        maps = maps.view(x.size(0), weight.size(0), -1).transpose(1, 2)
        return F.relu(self.conv[0](maps))

    def blocks(self, features: Tensor, kernel: Kernel, out: int, into: int) -> Tensor:
        """The last layer for the first channels alone: (n, positions, 8d) → (n, out, into, height, width)."""
        window = tuple(min(length, self.max_kernel_size) for length in kernel)
        projected = self._project(features, out, into)
        return enlarge(projected.unflatten(2, (-1, *window)).permute(2, 0, 1, 3, 4), kernel)

    def _project(self, features: Tensor, out: int, into: int) -> Tensor:
        """(n, positions, 8d) → (out, into, n · positions)."""
        last, size = cast(nn.Linear, self.conv[2]), self.max_channels
        weight = last.weight.view(size, size, -1)[:out, :into]
        bias = last.bias.view(size, size, 1)[:out, :into]
        rows = features.flatten(0, 1)
        if into == size:  # neighbouring rows of the weight: one product
            flat, offset = weight.flatten(0, 1), bias.flatten()
            if features.size(1) > 1:
                return torch.addmm(offset[:, None], flat, rows.t()).view(out, into, -1)
            # The other way round every block comes in one piece.
            return torch.addmm(offset, rows, flat.t()).view(-1, out, into).permute(1, 2, 0)
        if into == 1:  # evenly spaced rows: one product
            return torch.addmm(bias[:, 0], weight[:, 0], rows.t()).unsqueeze(1)
        return torch.baddbmm(bias, weight, rows.t().expand(out, -1, -1))

    def forward(self, x: Tensor, kernel: Kernel, out: int, into: int) -> Tensor:
        """Decodes blocks of weights."""
        return self.blocks(self.features(x, kernel), kernel, out, into)

    def last_layers(self) -> list[nn.Linear]:
        """The layers whose output is the block."""
        return [cast(nn.Linear, self.conv[2]), self.classifier]

    def classify(self, x: Tensor, into: int) -> Tensor:
        """Decodes weights of classification layers, of shape (n, K, into)."""
        block = self(x, (1, 1), self.max_channels, into)[..., 0, 0]
        return self.classifier(block.relu().transpose(1, 2)).transpose(1, 2)


class MLPDecoder(nn.Module):
    r"""Decodes all weights at once, :math:`W_1\, \mathrm{ReLU}(W_0 x + b_0) + b_1`: an ablation of arXiv 2110.13100.

    Args:
        channels: Width :math:`d` of the embeddings.
        max_channels: Channels :math:`C`.
        max_kernel_size: Kernel size :math:`S`.
        num_classes: Classes :math:`K`.
        crop: Which part of the :math:`S \times S` map a smaller kernel is.

    Shapes:
        - **input:** embeddings :math:`(n, d)` of nodes of one kernel size :math:`(h, w)`
        - **output:** blocks :math:`(n, o, i, h, w)` with :math:`o, i \le C`

    Example:
        >>> MLPDecoder(8, 16, 11, 10).classify(torch.zeros(2, 8), 5).shape
        torch.Size([2, 10, 5])
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

    def features(self, x: Tensor, kernel: Kernel) -> Tensor:
        """What the last layer sees, of shape (n, 2d); the same for every kernel."""
        return F.relu(self.fc[0](x))

    def blocks(self, features: Tensor, kernel: Kernel, out: int, into: int) -> Tensor:
        """The last layer for the positions and channels in use: (n, 2d) → (n, out, into, height, width)."""
        last = cast(nn.Linear, self.fc[2])
        channels, size = self.max_channels, self.max_kernel_size
        rows, columns = (crop_window(length, size, self.crop) for length in kernel)
        weight = last.weight.view(channels, channels, size, size, -1)[:out, :into, rows, columns]
        bias = last.bias.view(channels, channels, size, size)[:out, :into, rows, columns]
        flat = F.linear(features, weight.flatten(0, 3), bias.flatten())
        return enlarge(flat.view(-1, *weight.shape[:-1]), kernel)

    def forward(self, x: Tensor, kernel: Kernel, out: int, into: int) -> Tensor:
        """Decodes blocks of weights."""
        return self.blocks(self.features(x, kernel), kernel, out, into)

    def last_layers(self) -> list[nn.Linear]:
        """The layers whose output is the block."""
        return [self.classifier]

    def classify(self, x: Tensor, into: int) -> Tensor:
        """Decodes weights of classification layers, of shape (n, K, into)."""
        return self.classifier(self.features(x, (1, 1))).view(x.size(0), -1, self.max_channels)[..., :into]


class VectorDecoder(nn.Module):
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
        """The layers whose output is the block."""
        return [cast(nn.Linear, self.fc[2])]

    def classify(self, x: Tensor) -> Tensor:
        """Decodes biases of classification layers, of shape (n, K)."""
        return self.classifier(F.relu(self(x)[:, 1]))
