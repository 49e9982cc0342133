"""One architecture of DeepNets-1M: its genotype and the choices outside of its cells."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from ...utils.config import Config, ConfigError
from .genotype import Branch, Genotype

PUBLISHED_NAMES: Final = {
    "norm": "norm",
    "ks": "stem_kernel",
    "preproc": "preprocess",
    "glob_avg": "global_average",
    "stem_pool": "stem_pool",
    "C_mult": "multiplier",
    "n_cells": "cells",
    "fc_layers": "classifier_layers",
    "C": "width",
    "fc_dim": "hidden",
    "stem_type": "stem_type",
    "imagenet_stride": "imagenet_stride",
    "genotype": "genotype",
}
"""Name of an argument in the published files → field of :class:`Architecture`."""


class Architecture(Config):
    """The description of a network; see :class:`~ghn_pyg.families.deepnets.Network` for what it builds.

    Args:
        genotype: The two cells.
        cells: Number of cells, 1 to 1000.
        norm: ``"bnorm"`` for batch norms, ``None`` for no norms.
        stem_kernel: Kernel size of the stem's first convolution, odd.
        stem_type: 0 for one convolution, 1 for three convolutions with two outputs.
        stem_pool: Whether a max-pool follows a stem of type 0.
        preprocess: Whether 1×1 convolutions map the inputs of each cell to its width. Needed where cells change the
            number of channels: with a ``multiplier`` above 1, or where several states are concatenated.
        global_average: Whether a global average precedes the classifier; otherwise the feature map is flattened.
        multiplier: Factor by which each reduction cell multiplies the width.
        classifier_layers: Number of linear layers of the classifier, 1 or 2.
        width: Channels of the first cells.
        hidden: Hidden size of a classifier with two layers.
        imagenet_stride: Stride of a stem of type 0 on large images, 2 or 4.

    Raises:
        ConfigError: If a field is missing, has a bad value or contradicts another.

    Example:
        >>> from ghn_pyg.families.deepnets import VIT
        >>> Architecture(genotype=VIT, cells=12, preprocess=False, width=128).attention
        True
    """

    genotype: Genotype
    cells: int = Field(ge=1, le=1000)  # far above every published network; a larger number is a damaged file
    norm: Literal["bnorm"] | None = "bnorm"
    stem_kernel: PositiveInt = 3
    stem_type: Literal[0, 1] = 0
    stem_pool: bool = False
    preprocess: bool = True
    global_average: bool = True
    multiplier: PositiveInt = 1
    classifier_layers: Literal[1, 2] = 1
    width: PositiveInt = 32
    hidden: PositiveInt = 256
    imagenet_stride: Literal[2, 4] = 4

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.stem_kernel % 2 == 0:
            raise ValueError(f"stem_kernel expected an odd size, got {self.stem_kernel}")
        concatenated = max(len(self.genotype.normal_concat), len(self.genotype.reduce_concat))
        if not self.preprocess and (self.multiplier > 1 or concatenated > 1):
            raise ValueError(
                "preprocess expected True, as cells change the number of channels: multiplier is "
                f"{self.multiplier} and up to {concatenated} states are concatenated"
            )
        return self

    @classmethod
    def from_args(cls, args: Mapping[str, Any]) -> Architecture:
        """Reads the arguments of a published file.

        Args:
            args: A dictionary; ``C``, ``fc_dim`` and ``imagenet_stride`` are optional, and entries that follow from
                the others, such as ``num_nodes``, are ignored.

        Raises:
            ConfigError: If an entry is missing or wrong.

        Example:
            >>> from ghn_pyg.families.deepnets import DARTS
            >>> darts = Architecture(genotype=DARTS, cells=20)
            >>> Architecture.from_args(darts.to_args()) == darts
            True
        """
        if missing := PUBLISHED_NAMES.keys() - args.keys() - {"C", "fc_dim", "imagenet_stride"}:
            raise ConfigError(f"the arguments of an architecture lack {', '.join(sorted(missing))}")
        return cls(**{field: args[name] for name, field in PUBLISHED_NAMES.items() if name in args})

    def to_args(self) -> dict[str, Any]:
        """The arguments as published files hold them."""
        fields = self.to_dict()
        return {name: fields[field] for name, field in PUBLISHED_NAMES.items()}

    @property
    def attention(self) -> bool:
        """Whether there is self-attention, so that the stem makes patches and nothing strides."""
        return "msa" in self.genotype.operations

    @property
    def key(self) -> bytes:
        """16 bytes that identify the structure, whatever the width and the hidden size.

        The order of branches, steps and concatenated states does not matter, nor do branches and options without
        effect. The bytes are the same on every machine.
        """
        genotype = self.genotype
        stem = () if self.attention else (self.stem_kernel, self.stem_type, self.stem_type == 0 and self.stem_pool)
        has_norms = self.preprocess or not self.attention or any("conv" in name for name in genotype.operations)
        structure = (
            self.cells, self.norm if has_norms else None, stem, self.preprocess, self.global_average, self.multiplier,
            self.classifier_layers, _cell_key(genotype.normal, genotype.normal_concat),
            _cell_key(genotype.reduce, genotype.reduce_concat),
        )  # fmt: skip
        return _digest(structure)


def _cell_key(branches: tuple[Branch, ...], concat: tuple[int, ...]) -> list[bytes]:
    """One digest per concatenated state, of everything that it is computed from."""
    states = [b"0", b"1"]
    for first, second in zip(branches[::2], branches[1::2], strict=True):
        terms = [(name, states[state]) for name, state in (first, second) if name != "none" and states[state]]
        states.append(_digest(sorted(terms)) if terms else b"")
    return sorted(states[state] for state in concat)


def _digest(value: Any) -> bytes:
    return hashlib.blake2b(repr(value).encode(), digest_size=16).digest()
