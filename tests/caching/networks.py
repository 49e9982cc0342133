"""A network for caches, and its input."""

import torch
from torch import nn

X = torch.rand(2, 5)


def small(width=7):
    return nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, 3))
