"""How well a GHN with an encoder predicts parameters."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

from ..deepnets.dataset import DeepNets
from ..evaluation.evaluate import evaluate
from ..evaluation.subjects import deepnets_subjects
from ..images import load_images
from ..models.config import GHNConfig
from ..models.ghn import GHN
from ..training.config import TrainConfig
from ..training.recipes import load_config
from ..training.run import train


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParameterTask:
    """Meta-trains a GHN with the encoder, and measures networks with the parameters that it predicts.

    All encoders are trained by one recipe for the same number of steps, and decode with the same decoder.

    Args:
        recipe: The recipe, or a YAML file; see :func:`~ghn_pyg.training.recipes.load_config`.
        changes: Fields of it that differ, such as ``"epochs=50"``.
        splits: The evaluation splits.
        count: Networks of each split.
        width: Their width.
    """

    kind: ClassVar[str] = "parameters"
    sign: ClassVar[int] = 1
    recipe: str = "digits"
    changes: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("test", "wide", "deep", "dense", "bnfree")
    count: int = 20
    width: int = 8

    def config(self, ghn: GHNConfig, seed: int) -> TrainConfig:
        """The run of an encoder."""
        recipe = load_config(self.recipe, self.changes)
        own = ("encoder", "hidden_channels", "layers", "heads")
        changed = dataclasses.replace(recipe.ghn, **{field: getattr(ghn, field) for field in own})
        return dataclasses.replace(recipe, ghn=changed, seed=seed)

    def trained(self, ghn: GHNConfig, seed: int, folder: Path) -> GHN:
        """The GHN, meta-trained unless it was before."""
        return train(self.config(ghn, seed), folder / f"{ghn.encoder}-{seed}")

    def run(self, ghn: GHNConfig, seed: int, folder: Path) -> dict[str, float]:
        """Top-1 accuracy on each split, and the share of networks that ran where it is not all of them."""
        config = self.config(ghn, seed)
        images = load_images(config.images, config.folder, image_size=config.image_size, augment=False)
        model, found = self.trained(ghn, seed, folder), {}
        for name in self.splits:
            split = DeepNets(name, num_classes=images.num_classes, image_size=images.image_size, width=self.width)
            report = evaluate(model, deepnets_subjects(split[: self.count]), images)
            found[f"{name} top-1"] = report.mean("top1")
            if report.failures:
                found[f"{name} coverage"] = report.coverage
        return found
