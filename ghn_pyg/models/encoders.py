"""Graph encoders by name: the values of ``GHNConfig.encoder``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import nn

_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)


class EncoderConfig(Protocol):
    """The fields that an encoder is built from, such as those of a :class:`~ghn_pyg.GHNConfig`."""

    encoder: str
    hidden_channels: int
    layers: int
    heads: int


class EncoderKind(NamedTuple):
    """A registered encoder.

    Args:
        build: Builds it from a configuration.
        layers: Whether it has a number of layers.
        heads: Whether it has attention heads.
    """

    build: Callable[[EncoderConfig], nn.Module]
    layers: bool = True
    heads: bool = False


def _builtin(name: str) -> Callable[[EncoderConfig], nn.Module]:
    def build(config: EncoderConfig) -> nn.Module:
        from .builtin_encoders import BUILDERS  # torch and PyG, which the command line imports only when needed

        return BUILDERS[name](config.hidden_channels, config.layers, config.heads)

    return build


PUBLISHED_ENCODERS: Final = ("ghn3", "ghn2", "ghn1", "mlp")
"""Encoders of checkpoints without a configuration; their tensors tell them apart."""

_BUILT_IN: Final = {
    "ghn3": EncoderKind(_builtin("ghn3"), heads=True),
    **{name: EncoderKind(_builtin(name), layers=False) for name in ("ghn2", "ghn1", "mlp")},
    **{name: EncoderKind(_builtin(name)) for name in ("gcn", "gin", "gine", "pna")},
    **{name: EncoderKind(_builtin(name), heads=True) for name in ("gatv2", "gps", "exphormer")},
}

ENCODERS: Final = dict(_BUILT_IN)
"""Encoders by name; :func:`register_encoder` adds to them."""


def register_encoder(
    name: str, build: Callable[[EncoderConfig], nn.Module], *, layers: bool = True, heads: bool = False
) -> None:
    r"""Registers an encoder, so that GHNs can be configured with it, trained and loaded.

    It is called as ``encoder(x, edge_index, distance, batch)`` with nodes :math:`(N, d)`, edges :math:`(2, E)`,
    shortest-path distances flattened to :math:`(\sum_g N_g^2,)` and the graph of each node (``None`` for a single
    graph), and returns nodes :math:`(N, d)`. :class:`~ghn_pyg.nn.ConvEncoder` wraps modules of PyTorch Geometric.

    Args:
        name: Its name in ``GHNConfig.encoder``. An earlier encoder of yours with that name is replaced.
        build: Builds it from a configuration with ``hidden_channels``, ``layers`` and ``heads``.
        layers: Whether it has a number of layers, which must then be at least 1.
        heads: Whether it has attention heads, whose number must then be at least 1 and divide the width.

    Raises:
        ValueError: If the name belongs to an encoder of this library, or has other characters than letters, digits,
            ``-``, ``_`` and ``.``.
        TypeError: If ``build`` is not callable.

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
        raise ValueError(f"{name!r} is an encoder of this library; choose another name")
    ENCODERS[name] = EncoderKind(build, layers, heads)


def build_encoder(config: EncoderConfig) -> nn.Module:
    """Builds the encoder of a configuration."""
    encoder = ENCODERS[config.encoder].build(config)
    names: dict[int, str] = {}
    for name, tensor in encoder.state_dict(keep_vars=True).items():
        if not tensor.is_floating_point():
            raise ValueError(
                f"the encoder {config.encoder!r} keeps {tensor.dtype} in {name}, which checkpoints do not hold: "
                "register the buffer with persistent=False, and use no batch norms, which mix the graphs of a batch"
            )
        if (other := names.setdefault(id(tensor), name)) != name:
            raise ValueError(
                f"{other} and {name} of the encoder {config.encoder!r} are the same tensor; give each layer its own"
            )
    try:
        inspect.signature(encoder.forward).bind("x", "edge_index", "distance", "batch")
    except TypeError as error:
        raise ValueError(
            f"the encoder {config.encoder!r} expected a forward with the arguments (x, edge_index, distance, batch): "
            f"{error}; wrap modules with (x, edge_index, …) in ConvEncoder"
        ) from error
    return encoder
