"""One architecture of the DeepNets-1M family: its cells and what stands around them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, Final

from .genotype import Branch, Genotype

MAX_CELLS: Final = 1000
"""Far above every published network; a larger number is a damaged file."""

# The names that published files use, in their order.
_PUBLISHED: Final = {
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
}
_OPTIONAL: Final = frozenset(("C", "fc_dim", "imagenet_stride"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """The description of a network; see :class:`~ghn_pyg.families.deepnets.network.Network` for what it means.

    Args:
        genotype: What the cells compute.
        cells: Number of cells, 1 to 1000.
        norm: ``"bnorm"`` for batch norms, ``None`` for no norms.
        stem_kernel: Kernel size of the stem's first convolution, odd.
        stem_type: 0 for one convolution, 1 for three with two outputs.
        stem_pool: Whether a max-pool follows a stem of type 0.
        preprocess: Whether 1×1 convolutions bring the inputs of each cell to its width. They are needed where that
            differs from what cells give out: with a ``multiplier`` over 1, or where several states are concatenated.
        global_average: Whether the classifier takes an average over the positions, else all positions.
        multiplier: By how much each reduction cell multiplies the width.
        classifier_layers: Number of linear layers of the classifier, 1 or 2.
        width: Channels of the first cells; may be given anew for each network.
        hidden: Hidden size of a classifier of two layers; may be given anew for each network.
        imagenet_stride: Stride of a stem of type 0 for large images, 2 or 4.

    Raises:
        TypeError: If a value is of another type.
        ValueError: If a value is out of range, or the values do not fit together.

    Example:
        >>> from ghn_pyg.families.deepnets.genotype import VIT
        >>> Architecture(genotype=VIT, cells=12, preprocess=False, width=128).attention
        True
    """

    genotype: Genotype
    cells: int
    norm: str | None = "bnorm"
    stem_kernel: int = 3
    stem_type: int = 0
    stem_pool: bool = False
    preprocess: bool = True
    global_average: bool = True
    multiplier: int = 1
    classifier_layers: int = 1
    width: int = 32
    hidden: int = 256
    imagenet_stride: int = 4

    def __post_init__(self) -> None:
        if not isinstance(self.genotype, Genotype):
            raise TypeError(f"genotype expected a Genotype, got {self.genotype!r:.80}")
        for name in ("preprocess", "global_average", "stem_pool"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} expected True or False, got {getattr(self, name)!r:.80}")
        for name in ("cells", "stem_kernel", "stem_type", "multiplier", "classifier_layers", "width", "hidden",
                     "imagenet_stride"):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} expected an integer, got {value!r:.80}")
        _expect(self.norm in ("bnorm", None), "norm", "'bnorm' or None", self.norm)
        _expect(1 <= self.cells <= MAX_CELLS, "cells", f"1 to {MAX_CELLS}", self.cells)
        _expect(self.stem_kernel > 0 and self.stem_kernel % 2 == 1, "stem_kernel", "an odd size", self.stem_kernel)
        _expect(self.stem_type in (0, 1), "stem_type", "0 or 1", self.stem_type)
        _expect(self.classifier_layers in (1, 2), "classifier_layers", "1 or 2", self.classifier_layers)
        _expect(self.imagenet_stride in (2, 4), "imagenet_stride", "2 or 4", self.imagenet_stride)
        for name in ("multiplier", "width", "hidden"):
            _expect(getattr(self, name) > 0, name, "a positive number", getattr(self, name))
        if not self.preprocess:
            self._check_widths_agree()

    def _check_widths_agree(self) -> None:
        parts = max(len(self.genotype.normal_concat), len(self.genotype.reduce_concat))
        if self.multiplier > 1 or parts > 1:
            raise ValueError(
                "cells without preprocessing must give out as many channels as they take in, but multiplier is "
                f"{self.multiplier} and up to {parts} states are concatenated; set preprocess=True"
            )

    @classmethod
    def from_args(cls, args: Mapping[str, Any]) -> Architecture:
        """The architecture that a published file describes as a dictionary.

        ``C``, ``fc_dim`` and ``imagenet_stride`` may be missing. Other entries, such as ``num_nodes``, follow from
        these and are not looked at.

        Raises:
            TypeError: If ``args`` is no dictionary or an entry is of the wrong type.
            ValueError: If an entry is missing or wrong.

        Example:
            >>> from ghn_pyg.families.deepnets.genotype import DARTS
            >>> darts = Architecture(genotype=DARTS, cells=20)
            >>> Architecture.from_args(darts.to_args()) == darts
            True
        """
        if not isinstance(args, Mapping):
            raise TypeError(f"an architecture's arguments are a dictionary, got {args!r:.80}")
        if missing := [name for name in (*_PUBLISHED, "genotype") if name not in args and name not in _OPTIONAL]:
            raise ValueError(f"the architecture's arguments lack {', '.join(missing)}")
        fields = {field: args[name] for name, field in _PUBLISHED.items() if name in args}
        return cls(genotype=Genotype.from_args(args["genotype"]), **fields)

    def to_args(self) -> dict[str, Any]:
        """The dictionary that published files hold."""
        args = {name: getattr(self, field) for name, field in _PUBLISHED.items()}
        return {**args, "genotype": self.genotype.to_args()}

    @property
    def attention(self) -> bool:
        """Whether self-attention is among the operations, so that the stem makes patches and nothing strides."""
        return "msa" in self.genotype.operations

    @property
    def key(self) -> bytes:
        """16 bytes that are equal for architectures of the same structure, whatever their width and hidden size.

        Order of branches, steps and concatenated states, branches without effect and options without effect do not
        count. The bytes stay the same on every machine.
        """
        genotype = self.genotype
        stem = () if self.attention else (self.stem_kernel, self.stem_type, self.stem_type == 0 and self.stem_pool)
        normed = self.preprocess or not self.attention or any("conv" in name for name in genotype.operations)
        structure = (
            self.cells, self.norm if normed else None, stem, self.preprocess, self.global_average, self.multiplier,
            self.classifier_layers, _cell_key(genotype.normal, genotype.normal_concat),
            _cell_key(genotype.reduce, genotype.reduce_concat),
        )  # fmt: skip
        return _digest(structure)


def _cell_key(branches: tuple[Branch, ...], concat: tuple[int, ...]) -> list[bytes]:
    """What each part of a cell's output is computed from."""
    states = [b"0", b"1"]
    for first, second in zip(branches[::2], branches[1::2], strict=True):
        terms = [(name, states[state]) for name, state in (first, second) if name != "none" and states[state]]
        states.append(_digest(sorted(terms)) if terms else b"")
    return sorted(states[state] for state in concat)


def _digest(value: Any) -> bytes:
    return hashlib.blake2b(repr(value).encode(), digest_size=16).digest()


def _expect(condition: bool, name: str, expected: str, value: Any) -> None:
    if not condition:
        raise ValueError(f"{name} expected {expected}, got {value!r:.80}")
