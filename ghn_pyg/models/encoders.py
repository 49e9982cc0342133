"""Graph encoders by name: what ``GHNConfig.encoder`` may be."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from torch import nn

    from .config import GHNConfig

_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)

Builder = Callable[["GHNConfig"], "nn.Module"]


class EncoderKind(NamedTuple):
    """A graph encoder.

    Args:
        build: Makes it from a GHN's configuration.
        layers: Whether it has a number of layers.
        heads: Whether it has attention heads.
    """

    build: Builder
    layers: bool = True
    heads: bool = False


def register_encoder(name: str, build: Builder, *, layers: bool = True, heads: bool = False) -> None:
    r"""Makes an encoder known, so that a GHN can be configured with it, trained and loaded.

    It is called as ``encoder(x, edge_index, distance, batch)`` with nodes :math:`(N, d)`, edges :math:`(2, E)`,
    shortest-path distances flattened to :math:`(\sum_g N_g^2,)` and for each node its graph (``None`` for a single
    one), and gives nodes :math:`(N, d)`. :class:`~ghn_pyg.nn.ConvEncoder` makes one of any module of PyTorch
    Geometric.

    Args:
        name: What ``GHNConfig.encoder`` calls it.
        build: Makes it from the configuration, with ``config.hidden_channels``, ``config.layers`` and
            ``config.heads``.
        layers: Whether it has a number of layers, which then is at least 1.
        heads: Whether it has attention heads, which then are at least 1 and divide the width.

    Raises:
        ValueError: If it is the name of an encoder of this library, or no name: letters, digits, ``-``, ``_`` and
            ``.``. A name of your own stands for what it was registered for last.
        TypeError: If ``build`` cannot be called.

    Example:
        >>> from ghn_pyg import GHN, GHNConfig
        >>> from ghn_pyg.nn import ConvEncoder
        >>> from torch_geometric.nn import SAGEConv
        >>> def sage(config):
        ...     width = config.hidden_channels
        ...     return ConvEncoder(width, [SAGEConv(width, width) for _ in range(config.layers)])
        >>> register_encoder("sage", sage)
        >>> ghn = GHN(GHNConfig(encoder="sage", layers=2, heads=0))
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"an encoder's name expected letters, digits, '-', '_' and '.', got {name!r}")
    if not callable(build):
        raise TypeError(f"build expected a function of the configuration, got {type(build).__name__}")
    if name in _BUILT_IN:
        raise ValueError(f"this library has an encoder {name!r} already; choose another name")
    ENCODERS[name] = EncoderKind(build, layers, heads)


def _ours(name: str) -> Builder:
    """One of this library's encoders, which are imported when one is made: torch takes seconds."""

    def build(config: GHNConfig) -> Any:
        return getattr(importlib.import_module(".builtin_encoders", __package__), name)(config)

    return build


PUBLISHED_ENCODERS: Final = ("ghn3", "ghn2", "ghn1", "mlp")
"""Those that checkpoints without a configuration may have; they are told apart by their tensors."""

ENCODERS: Final[dict[str, EncoderKind]] = {
    "ghn3": EncoderKind(_ours("ghn3"), heads=True),
    **{name: EncoderKind(_ours(name), layers=False) for name in ("ghn2", "ghn1", "mlp")},
    **{name: EncoderKind(_ours(name)) for name in ("gcn", "gin", "gine", "pna")},
    **{name: EncoderKind(_ours(name), heads=True) for name in ("gatv2", "gps", "exphormer")},
}
"""Encoders by name; :func:`register_encoder` adds to them."""

_BUILT_IN: Final = frozenset(ENCODERS)
