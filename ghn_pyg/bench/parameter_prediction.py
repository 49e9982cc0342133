"""How well a GHN with an encoder predicts parameters."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import ClassVar, Final

from filelock import FileLock

from ..evaluation.evaluate import evaluate
from ..evaluation.subjects import deepnets_subjects
from ..families.deepnets.dataset import DeepNets
from ..families.deepnets.sampling import check_place
from ..models.config import GHNConfig
from ..models.ghn import GHN
from ..training.config import TrainConfig, load_config
from ..training.image_batches import run_images
from ..training.run import train
from .checks import check_task

RUNS: Final = "ghns"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetaTrainedTask(abc.ABC):
    """What is measured of a GHN with the encoder, meta-trained.

    All encoders are trained by one recipe for the same number of steps, and decode with the same decoder.

    Args:
        recipe: The recipe, or a YAML file; see :func:`~ghn_pyg.training.config.load_config`.
        changes: Fields of it that differ, such as ``"epochs=50"``.
        width: Width of the networks that it is measured with.
    """

    sign: ClassVar[int] = 1
    recipe: str = "digits"
    changes: tuple[str, ...] = ()
    width: int = 8

    def __post_init__(self) -> None:
        check_task(self)
        load_config(self.recipe, self.changes)

    @abc.abstractmethod
    def run(self, ghn: GHNConfig, seed: int, folder: Path) -> dict[str, float]:
        """Measures an encoder; see :class:`~ghn_pyg.bench.tasks.Task`."""

    def config(self, ghn: GHNConfig, seed: int) -> TrainConfig:
        """The run of an encoder."""
        recipe = load_config(self.recipe, self.changes)
        own = ("encoder", "hidden_channels", "layers", "heads")
        changed = dataclasses.replace(recipe.ghn, **{field: getattr(ghn, field) for field in own})
        return recipe.replace(ghn=changed, seed=seed)

    def trained(self, ghn: GHNConfig, seed: int, folder: Path) -> GHN:
        """The GHN, meta-trained unless it was before, by any task with the same recipe."""
        config = self.config(ghn, seed)
        run = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest()[:12]
        place = folder / f"{ghn.encoder}-{seed}-{run}"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{place}.lock"):  # another process may have a task that wants the same GHN
            return train(config, place)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParameterTask(MetaTrainedTask):
    """Measures networks with the parameters that the GHN predicts.

    Args:
        splits: The evaluation splits.
        count: Networks of each split.
    """

    kind: ClassVar[str] = "parameters"
    splits: tuple[str, ...] = ("test", "wide", "deep", "dense", "bnfree")
    count: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        for split in self.splits:
            check_place(split, 0, 0)

    def run(self, ghn: GHNConfig, seed: int, folder: Path) -> dict[str, float]:
        """Top-1 accuracy on each split, and the share of networks that ran."""
        config = self.config(ghn, seed)
        images = run_images(config, augment=False)
        model = self.trained(ghn, seed, folder.parent / RUNS)
        found: dict[str, float] = {}
        ran = total = 0
        for name in self.splits:
            split = DeepNets(name, num_classes=images.num_classes, image_size=images.image_size, width=self.width)
            report = evaluate(model, deepnets_subjects(split[: self.count]), images)
            found[f"{name} top-1"] = report.mean("top1")
            ran, total = ran + len(report.successes), total + len(report.rows)
        return {**found, "networks that ran": ran / total}
