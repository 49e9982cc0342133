"""Accuracy of networks whose parameters a GHN with the encoder predicts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, ClassVar, Self

from filelock import FileLock
from pydantic import Field, PositiveInt, field_validator, model_validator

from ..evaluation import deepnets_subjects, evaluate
from ..families.deepnets.architecture_sampling import SPLIT_SIZES
from ..families.deepnets.dataset import DeepNets
from ..models import GHN, GHNConfig
from ..training import TrainConfig, load_config, train
from ..training.image_batches import run_images
from ..utils.config import ConfigError
from ..utils.suggest import choice
from .base_task import Task, Texts


class MetaTrainedTask(Task):
    """A task that measures a meta-trained GHN with the encoder.

    All encoders have the same decoder and are trained by the same recipe for the same number of steps. Tasks with the
    same recipe share the GHN of an encoder and seed.

    Args:
        recipe: Name or YAML file of the recipe; see :func:`~ghn_pyg.training.load_config.load_config`.
        changes: Changed fields of the recipe, such as ``"epochs=50"``.
        width: Width of the networks that the GHN is measured with.
    """

    sign: ClassVar[int] = 1
    recipe: str = "digits"
    changes: Texts = ()
    width: PositiveInt = 8

    @model_validator(mode="after")
    def _check_recipe(self) -> Self:
        try:
            load_config(self.recipe, self.changes)
        except ValueError as error:
            raise ConfigError(f"{type(self).__name__}.recipe: {error}") from error
        return self

    def config(self, ghn: GHNConfig, seed: int) -> TrainConfig:
        """The configuration of the training run of an encoder."""
        own = {f"ghn.{field}": getattr(ghn, field) for field in ("encoder", "hidden_channels", "layers", "heads")}
        changes = [f"{name}={json.dumps(value)}" for name, value in {**own, "seed": seed}.items()]
        return load_config(self.recipe, [*self.changes, *changes])

    def trained_ghn(self, ghn: GHNConfig, seed: int, folder: Path) -> GHN:
        """The meta-trained GHN, from the folder ``ghns`` beside the task's own if it was trained before."""
        config = self.config(ghn, seed)
        digest = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest()[:12]
        run = folder.parent / "ghns" / f"{ghn.encoder}-{seed}-{digest}"
        run.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{run}.lock"):  # another process may run another task with the same GHN
            return train(config, run)


class ParameterTask(MetaTrainedTask):
    """Accuracy of untrained networks of DeepNets-1M with the parameters that the GHN predicts.

    Args:
        splits: The evaluation splits.
        count: Networks of each split.
        recipe, changes, width: See :class:`MetaTrainedTask`.
    """

    kind: ClassVar[str] = "parameters"
    splits: Annotated[Texts, Field(min_length=1)] = ("test", "wide", "deep", "dense", "bnfree")
    count: PositiveInt = 20

    @field_validator("splits")
    @classmethod
    def _known_splits(cls, splits: tuple[str, ...]) -> tuple[str, ...]:
        for split in splits:
            if split not in SPLIT_SIZES:
                raise ValueError(f"expected names of splits{choice(split, SPLIT_SIZES)}")
        return splits

    def run(self, ghn: GHNConfig, seed: int, folder: Path) -> dict[str, float]:
        """Top-1 accuracy on each split, and the fraction of networks that ran."""
        images = run_images(self.config(ghn, seed), augment=False)
        model = self.trained_ghn(ghn, seed, folder)
        results: dict[str, float] = {}
        ran = total = 0
        for name in self.splits:
            split = DeepNets(name, num_classes=images.num_classes, image_size=images.image_size, width=self.width)
            report = evaluate(model, deepnets_subjects(split[: self.count]), images)
            results[f"{name} top-1"] = report.mean("top1")
            ran, total = ran + len(report.successes), total + len(report.rows)
        return {**results, "networks that ran": ran / total}
