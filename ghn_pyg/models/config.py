"""The configuration of a Graph HyperNetwork and the published presets."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_serializer, model_validator

from ..utils.config import Config
from ..utils.suggest import suggestion
from .encoders import ENCODERS
from .trained_for import TrainedFor


class GHNConfig(Config):
    r"""The shape and the maths of a :class:`~ghn_pyg.GHN`, and what it was trained for.

    Args:
        encoder: Graph encoder: ``"ghn3"`` (Graphormer, arXiv 2303.04143), ``"ghn2"`` (gated graph network with
            virtual edges, arXiv 2110.13100), ``"ghn1"`` (the same without virtual edges), ``"mlp"`` (no graph), or
            another of :data:`~ghn_pyg.models.ENCODERS`, to which :func:`~ghn_pyg.register_encoder` adds.
        decoder: Weight decoder: ``"conv"`` (published) or ``"mlp"`` (ablation of arXiv 2110.13100).
        hidden_channels: Width :math:`d` of node embeddings; a multiple of 4, and of ``heads`` with attention.
        max_channels: Channels :math:`C` that are decoded directly; wider tensors repeat them.
        max_kernel_size: Kernel size :math:`S` that is decoded directly; larger kernels are interpolated.
        num_classes: Classes :math:`K` of the networks that the GHN was trained on.
        layers: Layers of the encoder (0 for GHN-2, GHN-1 and the MLP, which have no such number).
        heads: Attention heads (0 for encoders without attention).
        final_norm: Whether a layer norm follows the encoder.
        weight_norm: Whether decoded tensors are scaled by their fan-in.
        kernel_crop: Which part of the :math:`S \times S` map a smaller kernel uses: ``"center"`` (GHN-3) or
            ``"corner"`` (GHN-2, top left).
        trained_for: Images and networks that it was trained for; ``None`` if that is not known.

    Raises:
        ConfigError: If a value is out of range; a :class:`ValueError` that names the field.

    Example:
        >>> GHNConfig.preset("ghn3tm8").layers
        3
    """

    encoder: str = "ghn3"
    decoder: Literal["conv", "mlp"] = "conv"
    hidden_channels: int = Field(default=64, gt=0, multiple_of=4, le=1 << 16)
    max_channels: PositiveInt = Field(default=64, le=1 << 13)
    max_kernel_size: PositiveInt = Field(default=16, le=1 << 8)
    num_classes: PositiveInt = Field(default=1000, le=10**7)
    layers: NonNegativeInt = Field(default=3, le=200)
    heads: NonNegativeInt = 8
    final_norm: bool = True
    weight_norm: bool = True
    kernel_crop: Literal["center", "corner"] = "center"
    trained_for: TrainedFor | None = None

    @field_validator("encoder")
    @classmethod
    def _registered(cls, name: str) -> str:
        if name not in ENCODERS:
            hint = suggestion(name, ENCODERS) or "; register your own with register_encoder, in a module for --import"
            raise ValueError(f"expected one of {', '.join(ENCODERS)}{hint}")
        return name

    @model_validator(mode="after")
    def _fits_encoder(self) -> Self:
        kind = ENCODERS[self.encoder]
        for field, needed in (("layers", kind.layers), ("heads", kind.heads)):
            if needed and getattr(self, field) < 1:
                raise ValueError(f"{field} expected at least 1 for the encoder {self.encoder!r}, got 0")
        if kind.heads and self.hidden_channels % self.heads:
            raise ValueError(
                f"hidden_channels expected a multiple of heads, got {self.hidden_channels} and {self.heads}"
            )
        names = self.trained_for.classes if self.trained_for else ()
        if names and len(names) != self.num_classes:
            raise ValueError(f"trained_for expected names of {self.num_classes} classes, got {len(names)}")
        return self

    @model_serializer(mode="wrap")
    def _as_in_older_files(self, serialize: Any) -> dict[str, Any]:
        """Leaves ``trained_for`` out if it is not known."""
        return {name: value for name, value in serialize(self).items() if value is not None}

    @property
    def shape(self) -> GHNConfig:
        """The configuration without what the GHN was trained for."""
        return self.replace(trained_for=None)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> GHNConfig:
        """The configuration of a published model, with ``changes`` applied.

        Args:
            name: One of :data:`PRESETS`, such as ``"ghn3tm8"``.
            changes: Fields to replace, such as ``num_classes=10``.

        Raises:
            ValueError: If there is no such preset; similar names are suggested.

        Example:
            >>> GHNConfig.preset("ghn3tm8", num_classes=10, max_kernel_size=11).num_classes
            10
        """
        if name not in PRESETS:
            hint = suggestion(name, PRESETS)
            raise ValueError(f"unknown preset {name!r}, expected one of {', '.join(PRESETS)}{hint}")
        return PRESETS[name].replace(**changes)


_GHN2 = GHNConfig(encoder="ghn2", hidden_channels=32, layers=0, heads=0, kernel_crop="corner")

PRESETS: dict[str, GHNConfig] = {
    "ghn3tm8": GHNConfig(),
    "ghn3sm8": GHNConfig(hidden_channels=128, max_channels=128, layers=5, heads=16),
    "ghn3lm8": GHNConfig(hidden_channels=256, max_channels=256, layers=12, heads=16),
    "ghn3xlm16": GHNConfig(hidden_channels=384, max_channels=384, layers=24, heads=16),
    "ghn2": _GHN2,
    "ghn1": _GHN2.replace(encoder="ghn1"),
    "mlp": _GHN2.replace(encoder="mlp"),
}
"""Published models by the stem of their checkpoint's name, with GHN-1 and the MLP baseline at GHN-2's size."""
