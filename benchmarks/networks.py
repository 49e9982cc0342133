"""Networks and GHNs that are measured."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn

from ghn_pyg import GHN, ArchData, GHNConfig

SEVEN: Final = (
    "resnet18",
    "resnet50",
    "densenet121",
    "efficientnet_b0",
    "vit_b_16",
    "convnext_tiny",
    "efficientnet_v2_l",
)
"""Networks of torchvision with published times."""

QUICK: Final = ("resnet18", "squeezenet1_1")

_TINY: Final = {
    "tiny": GHNConfig(hidden_channels=8, max_channels=12, layers=2, heads=2),
    "tiny2": GHNConfig(encoder="ghn2", hidden_channels=8, max_channels=12, layers=0, heads=0, kernel_crop="corner"),
}


def config_of(name: str) -> GHNConfig:
    """A published preset, or one of two tiny GHNs for ``--quick``: ``tiny`` (GHN-3) and ``tiny2`` (GHN-2)."""
    return _TINY[name] if name in _TINY else GHNConfig.preset(name)


def build_ghn(name: str) -> GHN:
    """An untrained GHN; the time of a prediction does not depend on the weights."""
    return GHN(config_of(name)).eval()


def weight_bytes(module: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


class Residual(nn.Module):
    """Two convolutions and a shortcut: a graph of five nodes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


IMAGE: Final = (1, 3, 8, 8)
"""Shape of the input of deep networks, small for a fast forward pass of the textbook."""


def deep_network(nodes: int, width: int = 32) -> nn.Module:
    """A residual network whose graph has about ``nodes`` nodes (six, and five for each block)."""
    blocks = max(1, round((nodes - 6) / 5))
    stem = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]
    return nn.Sequential(*stem, *(Residual(width) for _ in range(blocks)), *head)


def operations(config: GHNConfig, graph: ArchData) -> int:
    """Floating-point operations of a prediction: the sum over all weight and position tensors of

    2 · kh · kw · (4d · d + 8d · 4d + 8d · min(o, C) · min(i, C)).
    """
    d, channels, size = config.hidden_channels, config.max_channels, config.max_kernel_size
    total = 0
    for nodes in graph.params:
        for spec in nodes:
            if spec.role in ("weight", "position"):
                out, into, *kernel = spec.node_shape()
                positions = math.prod(min(length, size) for length in kernel)
                last = 8 * d * min(out, channels) * min(into, channels)
                total += 2 * positions * (4 * d * d + 8 * d * 4 * d + last)
    return total
