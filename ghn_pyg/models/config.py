"""The configuration of a Graph HyperNetwork and the published presets."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

from ..utils.suggest import suggestion
from .encoders import ENCODERS

Decoder = Literal["conv", "mlp"]
KernelCrop = Literal["center", "corner"]


@dataclasses.dataclass(frozen=True)
class GHNConfig:
    r"""Everything that fixes the shape and the maths of a :class:`~ghn_pyg.GHN`.

    Args:
        encoder: Graph encoder: ``"ghn3"`` (Graphormer, arXiv 2303.04143), ``"ghn2"`` (gated graph network with
            virtual edges, arXiv 2110.13100), ``"ghn1"`` (the same without virtual edges), ``"mlp"`` (no graph), or
            another of :data:`~ghn_pyg.models.encoders.ENCODERS`, to which
            :func:`~ghn_pyg.register_encoder` adds.
        decoder: Weight decoder: ``"conv"`` (published) or ``"mlp"`` (ablation of arXiv 2110.13100).
        hidden_channels: Width :math:`d` of node embeddings; a multiple of 4, and of ``heads`` where there are some.
        max_channels: Channels :math:`C` that are decoded directly; wider tensors repeat them.
        max_kernel_size: Kernel size :math:`S` that is decoded directly; larger kernels are interpolated.
        num_classes: Classes :math:`K` of the networks that the GHN was trained on.
        layers: Layers of the encoder (0 for GHN-2, GHN-1 and the MLP, which have no such number).
        heads: Attention heads (0 for encoders without attention).
        final_norm: Whether a layer norm closes the encoder.
        weight_norm: Whether decoded tensors are scaled by their fan-in.
        kernel_crop: Which part of the :math:`S \times S` map a smaller kernel is: ``"center"`` (GHN-3) or
            ``"corner"`` (GHN-2, top left).

    Raises:
        ValueError: If a value is out of range; the message names the field, what it got and what it takes.

    Example:
        >>> GHNConfig.preset("ghn3tm8").layers
        3
    """

    encoder: str = "ghn3"
    decoder: Decoder = "conv"
    hidden_channels: int = 64
    max_channels: int = 64
    max_kernel_size: int = 16
    num_classes: int = 1000
    layers: int = 3
    heads: int = 8
    final_norm: bool = True
    weight_norm: bool = True
    kernel_crop: KernelCrop = "center"

    def __post_init__(self) -> None:
        if not isinstance(self.encoder, str) or self.encoder not in ENCODERS:
            others = "; register_encoder, in a module for --import, makes others known"
            hint = suggestion(self.encoder, ENCODERS) or others
            raise ValueError(f"GHNConfig.encoder must be one of {', '.join(ENCODERS)}, got {self.encoder!r}{hint}")
        for field, kind in (("decoder", Decoder), ("kernel_crop", KernelCrop)):
            if getattr(self, field) not in get_args(kind):
                raise ValueError(f"GHNConfig.{field} must be one of {get_args(kind)}, got {getattr(self, field)!r}")
        for field in ("hidden_channels", "max_channels", "max_kernel_size", "num_classes"):
            self._require_integer(field, minimum=1)
        needed = ENCODERS[self.encoder]
        self._require_integer("layers", minimum=int(needed.layers))
        self._require_integer("heads", minimum=int(needed.heads))
        for field in ("final_norm", "weight_norm"):
            if not isinstance(getattr(self, field), bool):
                raise ValueError(f"GHNConfig.{field} must be true or false, got {getattr(self, field)!r}")
        if self.hidden_channels % 4:
            raise ValueError(
                f"GHNConfig.hidden_channels must be a multiple of 4 (four shape embeddings share it), "
                f"got {self.hidden_channels}"
            )
        if needed.heads and self.hidden_channels % self.heads:
            raise ValueError(
                f"GHNConfig.hidden_channels must be a multiple of heads, got {self.hidden_channels} and {self.heads}"
            )

    def _require_integer(self, field: str, minimum: int) -> None:
        value = getattr(self, field)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise ValueError(f"GHNConfig.{field} must be an integer of at least {minimum}, got {value!r}")

    @classmethod
    def preset(cls, name: str, **changes: Any) -> GHNConfig:
        """The configuration of a published model, with ``changes`` applied.

        Args:
            name: One of :data:`PRESETS`, such as ``"ghn3tm8"``.
            changes: Fields to replace, such as ``num_classes=10``.

        Raises:
            ValueError: If there is no such preset; near names are suggested.

        Example:
            >>> GHNConfig.preset("ghn3tm8", num_classes=10, max_kernel_size=11).num_classes
            10
        """
        if name not in PRESETS:
            hint = suggestion(name, PRESETS)
            raise ValueError(f"unknown preset {name!r}, expected one of {', '.join(PRESETS)}{hint}")
        return dataclasses.replace(PRESETS[name], **changes)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> GHNConfig:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: If a field is unknown or has a bad value.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown GHNConfig fields {unknown}, expected some of {sorted(known)}")
        return cls(**values)


_GHN2 = GHNConfig("ghn2", hidden_channels=32, layers=0, heads=0, kernel_crop="corner")

PRESETS: dict[str, GHNConfig] = {
    "ghn3tm8": GHNConfig(),
    "ghn3sm8": GHNConfig(hidden_channels=128, max_channels=128, layers=5, heads=16),
    "ghn3lm8": GHNConfig(hidden_channels=256, max_channels=256, layers=12, heads=16),
    "ghn3xlm16": GHNConfig(hidden_channels=384, max_channels=384, layers=24, heads=16),
    "ghn2": _GHN2,
    "ghn1": dataclasses.replace(_GHN2, encoder="ghn1"),
    "mlp": dataclasses.replace(_GHN2, encoder="mlp"),
}
"""Published models by the stem of their checkpoint's name, with GHN-1 and the MLP baseline at GHN-2's size."""
