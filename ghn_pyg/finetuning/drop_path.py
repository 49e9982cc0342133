"""Drop path, also called stochastic depth (arXiv 1603.09382): in training, residual branches are left out at random."""

from __future__ import annotations

import re
from typing import Any, Final

from torch import nn
from torchvision.ops import StochasticDepth

_NAME: Final = re.compile(r"drop_path\d*")


def drop_path_blocks(network: nn.Module) -> list[tuple[nn.Module, list[str]]]:
    """The blocks of a network that have drop path, in order, and their attributes that hold it.

    These are the modules of torchvision, and attributes with names such as ``drop_path1``, as in timm and Transformers.
    With a rate of 0 they hold an identity or nothing there.

    Example:
        >>> from torchvision.models import convnext_tiny
        >>> [names for _, names in drop_path_blocks(convnext_tiny())][:2]
        [['stochastic_depth'], ['stochastic_depth']]
    """
    blocks = []
    for block in network.modules():
        attributes = {**vars(block), **dict(block.named_children())}
        if names := [name for name, value in attributes.items() if _is_drop_path(name, value)]:
            blocks.append((block, names))
    return blocks


def _is_drop_path(name: str, value: Any) -> bool:
    if isinstance(value, StochasticDepth):
        return True
    if isinstance(value, nn.Module):
        return name.startswith("drop_path") and (isinstance(value, nn.Identity) or hasattr(value, "drop_prob"))
    return value is None and bool(_NAME.fullmatch(name))


def set_drop_path(network: nn.Module, rate: float) -> None:
    """Sets the rates of drop path in place: 0 in the first block, ``rate`` in the last one, and linear between."""
    blocks = drop_path_blocks(network)
    for number, (block, names) in enumerate(blocks, 1):
        share = (number - 1) / (len(blocks) - 1) if len(blocks) > 1 else 1
        for name in names:
            setattr(block, name, StochasticDepth(rate * share, "row"))
