"""Fingerprints of layers that hold anything."""

import dataclasses

import torch
from torch import nn

from ghn_pyg.caching.fingerprint import fingerprint
from ghn_pyg.graphs.module import arguments

X = torch.rand(2, 5)
MAP = torch.rand(2, 3, 11, 13)


def key(model, inputs=X, cutoff=50):
    return fingerprint(model, *arguments(model, inputs), cutoff).key


@dataclasses.dataclass
class Config:
    width: int = 3
    inner: object = None


class Slotted:
    __slots__ = ("size",)

    def __init__(self, size):
        self.size = size


def layer(**attributes):
    """A layer with these attributes, which may be anything."""
    net = nn.Linear(5, 7)
    for name, value in attributes.items():
        setattr(net, name, value)
    return net
