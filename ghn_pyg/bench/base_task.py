"""The base class of the tasks of a benchmark."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from ..models import GHNConfig
from ..utils.config import Config

Texts = Annotated[tuple[str, ...], Field(strict=False)]
"""A tuple of strings, which YAML files hold as a list."""


class Task(Config, abc.ABC):
    """A measurement of an encoder; its fields are the settings.

    Attributes:
        kind: Name of the task in :data:`~ghn_pyg.bench.config.TASKS`.
        sign: 1 if larger values are better, -1 if smaller values are.
    """

    kind: ClassVar[str]
    sign: ClassVar[int]

    @abc.abstractmethod
    def run(self, ghn: GHNConfig, seed: int, folder: Path) -> dict[str, float]:
        """Measures the encoder of a GHN; returns values by the name of the metric.

        In the folder the task saves what takes long to make, such as trained networks, and finds it again.
        """

    def to_dict(self) -> dict[str, Any]:
        """The kind and the fields as plain values."""
        return {"kind": self.kind, **super().to_dict()}
