"""The configuration of a meta-training run, and the published recipes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from ..families.deepnets.architecture_sampling import SPLIT_SIZES
from ..families.deepnets.meta_batches import NODE_BUDGET
from ..families.deepnets.width_sampling import CIFAR, WidthRule
from ..models.config import GHNConfig
from ..models.trained_for import Colours, Deviations
from ..utils.config import Config
from ..utils.yaml_config import find_recipe, read_fields

_RECIPES: Final = Path(__file__).parent / "recipes"


class TrainConfig(Config):
    r"""Everything that determines a meta-training run: equal configurations give equal runs.

    An epoch is one pass over the training images, unless ``epoch_steps`` sets its length. ``meta_batch`` and
    ``batch_size`` count the architectures and images of one step on all ranks together, so that they do not depend on
    the number of ranks.

    Args:
        ghn: The GHN to train: a :class:`~ghn_pyg.GHNConfig`, its fields, or a ``preset`` and changes to it.
        start: Name or folder of a GHN whose weights the run starts from, as for
            :func:`~ghn_pyg.models.ghn.from_pretrained`; by default new weights. If it is for another number of classes,
            the weights of its classification layer are new ones.
        images: Name of the image data; see :func:`~ghn_pyg.data.load_images`.
        folder: Folder with its files.
        download: Whether to download missing image data, where torchvision can.
        skip_damaged: Whether to leave out images that cannot be read; all files are read once to find them.
        image_size: Height and width of the images in pixels; by default that of the image data.
        normalization: Mean and standard deviation of the colours, for pixels from 0 to 1; by default those of the image
            data.
        augment: Whether to augment the images.
        held_out: Share of the training images that the run is not trained on. With each regular checkpoint, a few
            networks of the split ``val`` are measured on them, and the GHN with the best accuracy is kept. With 0, it
            is the one with the lowest training loss.
        split: Split of DeepNets-1M that architectures come from, any but ``"val"``, which measures.
        networks: Number of architectures, the first ones of the split, each used again and again; by default all.
        meta_batch: Architectures :math:`m` in a step.
        batch_size: Images in a step; every architecture runs on all of them.
        epochs: Length of the run.
        epoch_steps: Steps that count as an epoch; by default those of one pass over the training images.
        optimizer: ``"adam"``, ``"adamw"``, ``"sgd"`` with Nesterov momentum 0.9, or ``"lamb"`` (arXiv 1904.00962).
        learning_rate: Peak learning rate.
        weight_decay: Weight decay.
        schedule: ``"cosine"``: linear warm-up, then a cosine to 0; ``"steps"``: times 0.1 at each milestone.
        warmup_epochs: Length of the warm-up of ``"cosine"``.
        warmup_rate: Learning rate at the start of the warm-up.
        milestones: Epochs at which ``"steps"`` lowers the learning rate.
        penalty: Weight of the Frobenius norms of predicted tensors in the loss.
        label_smoothing: Share of a label that is spread over all classes.
        clip: Largest norm of the gradient; 0 disables clipping.
        balance: Whether to scale the gradients of all networks to the same norm; see
            :func:`~ghn_pyg.training.step.meta_gradient`.
        calibrate: Whether to scale the initial weights so that predictions have Kaiming's variance; see
            :func:`~ghn_pyg.training.calibrate`.
        curriculum: Share of the run during which networks grow from one cell to their full size; see
            :class:`~ghn_pyg.families.deepnets.curriculum.Curriculum`.
        ema: Decay of the exponential moving average of the weights, which is then the trained GHN; 0 disables it. The
            decay of step :math:`t` is at most :math:`(1 + t) / (10 + t)`, so that an average forgets the first weights.
        precision: ``"32-true"``, ``"bf16-mixed"`` or ``"16-mixed"``.
        compile: Whether to compile the GHN's encoder by ``torch.compile``, which may change the last digits. It does
            not pay on a CPU, where the encoder of GHN-3-T takes 2 % of a step.
        widths: Widths and head sizes of the networks: a rule, its fields, ``"cifar"`` or ``"imagenet"``.
        node_budget: Nodes that pass through the GHN at once.
        seed: Seed of everything random.
        max_skipped: Number of consecutive skipped steps (loss or gradient not finite) after which the run rolls back.
        checkpoint_every: Steps between checkpoints.
        keep: Number of checkpoints to keep.
        keep_every: Epochs between checkpoints that are kept as well, to the end; 0 keeps none of them.

    Raises:
        ConfigError: If a field is unknown, missing or has a bad value; the message names the field.

    Example:
        >>> TrainConfig(ghn={"preset": "ghn3tm8", "num_classes": 10}).learning_rate
        0.0004
    """

    ghn: GHNConfig
    start: Annotated[str, Field(min_length=1)] | None = None
    images: str = "digits"
    folder: str = "data"
    download: bool = False
    skip_damaged: bool = False
    image_size: int | None = None
    normalization: Annotated[tuple[Colours, Deviations] | None, Field(strict=False)] = None
    augment: bool = True
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.1
    split: str = "train"
    networks: PositiveInt | None = None
    meta_batch: PositiveInt = 8
    batch_size: Annotated[int, Field(ge=2)] = 64
    epochs: PositiveInt = 300
    epoch_steps: PositiveInt | None = None
    optimizer: Literal["adam", "adamw", "sgd", "lamb"] = "adamw"
    learning_rate: NonNegativeFloat = 4e-4
    weight_decay: NonNegativeFloat = 1e-2
    schedule: Literal["cosine", "steps"] = "cosine"
    warmup_epochs: NonNegativeInt = 5
    warmup_rate: NonNegativeFloat = 1e-5
    milestones: Annotated[tuple[PositiveInt, ...], Field(strict=False)] = (200, 250)
    penalty: NonNegativeFloat = 3e-5
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip: NonNegativeFloat = 5.0
    balance: bool = False
    calibrate: bool = False
    curriculum: Annotated[float, Field(ge=0, le=1)] = 0.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    compile: bool = False
    widths: WidthRule = CIFAR
    node_budget: PositiveInt = NODE_BUDGET
    seed: NonNegativeInt = 0
    max_skipped: PositiveInt = 20
    checkpoint_every: PositiveInt = 500
    keep: PositiveInt = 3
    keep_every: NonNegativeInt = 0

    @field_validator("ghn", mode="before")
    @classmethod
    def _apply_preset(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        changes = dict(value)
        preset = GHNConfig.preset(str(changes.pop("preset"))).to_dict() if "preset" in changes else {}
        return GHNConfig.from_dict(preset | changes)

    @field_validator("split")
    @classmethod
    def _check_split(cls, split: str) -> str:
        if split == "val" or split not in SPLIT_SIZES:
            raise ValueError(f"expected one of {', '.join(name for name in SPLIT_SIZES if name != 'val')}")
        return split

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if list(self.milestones) != sorted(self.milestones):
            raise ValueError(f"milestones expected ascending epochs, got {self.milestones}")
        if self.start and self.calibrate:
            raise ValueError(f"calibrate expected false, as the run starts from the weights of {self.start}, got true")
        if self.balance and self.precision == "16-mixed":
            # A network whose gradient overflows would be left out before the scaler could lower the scale.
            raise ValueError("balance expected false with 16-mixed; take bf16-mixed or 32-true")
        if self.schedule == "cosine" and self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs expected at most the {self.epochs} epochs, got {self.warmup_epochs}")
        return self


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package.

    Example:
        >>> "ghn3-t-cifar10" in recipe_names()
        True
    """
    return sorted(path.stem for path in _RECIPES.glob("*.yaml"))


class RecipeCost(Config):
    """What a recipe costs, by a kept measurement or computed from one.

    Args:
        parameters: Parameters of the GHN.
        steps: Steps of the whole run.
        seconds: Duration of a step on two CPU cores.
        memory: Memory of a process in GB.
        measured: Whether it was measured. Otherwise it needs more time and memory than this, which is computed without
            what the GHN itself computes.
    """

    parameters: PositiveInt
    steps: PositiveInt
    seconds: PositiveFloat
    memory: PositiveFloat
    measured: bool


def recipe_costs() -> dict[str, RecipeCost]:
    """What the recipes that come with the package cost, by name.

    Example:
        >>> recipe_costs()["digits-small"].steps
        3560
    """
    costs = read_fields(Path(__file__).parent / "recipe_costs.yaml")
    return {name: RecipeCost.from_dict(costs[name]) for name in recipe_names()}


def load_config(source: str | os.PathLike[str], changes: Sequence[str] = ()) -> TrainConfig:
    """Reads the configuration of a run.

    Args:
        source: The name of a recipe (see :func:`recipe_names`), or the path of a YAML file.
        changes: Changes of the form ``"name=value"`` with a value in YAML, such as ``"epochs=7"``,
            ``"ghn.layers=5"`` or ``"widths={widths: [8, 16]}"``.

    Raises:
        ValueError: If there is no such recipe or file, or it is not YAML.
        ConfigError: If a field is unknown, missing or has a bad value.

    Example:
        >>> load_config("ghn3-t-cifar10", ["learning_rate=1e-3", "ghn.layers=5"]).ghn.layers
        5
    """
    return TrainConfig.from_dict(read_fields(find_recipe(os.fspath(source), _RECIPES), changes))
