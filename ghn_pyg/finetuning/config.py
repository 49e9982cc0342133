"""The configuration of fine-tuning, and its recipes."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ..utils.config import Config
from ..utils.suggest import suggestion


class FitConfig(Config):
    r"""Everything that determines the training of a network, besides the network and the images.

    Args:
        epochs: Passes over the training images.
        batch_size: Images in a step.
        optimizer: ``"sgd"`` with Nesterov momentum 0.9, ``"adamw"``, or ``"lamb"``, which needs timm.
        learning_rate: Peak learning rate.
        weight_decay: Weight decay.
        schedule: ``"cosine"``: to 0; ``"constant"``; or ``"steps"``: times 0.1 at each milestone; all after a linear
            warm-up.
        warmup_epochs: Length of the warm-up.
        milestones: Epochs at which ``"steps"`` lowers the learning rate.
        patience: Number of epochs without a better accuracy on held-out images after which training stops, and the
            network of the best epoch is kept; 0 disables it.
        loss: ``"cross-entropy"``, or ``"binary"``: binary cross-entropy of each class, as in timm's recipes.
        label_smoothing: Share of a label that is spread over all classes.
        mixup: :math:`\alpha` of mixup (arXiv 1710.09412); 0 disables it.
        cutmix: :math:`\alpha` of CutMix (arXiv 1905.04899); 0 disables it. With both, each step uses one of them.
        randaugment: Magnitude of RandAugment (arXiv 1909.13719), up to 30; 0 disables it.
        cutout: Height and width in pixels of the square that cutout (arXiv 1708.04552) sets to 0 in each image; 0
            disables it.
        drop_path: Largest rate of drop path: that of the last block of the network; it grows linearly from 0 in the
            first one. By default the network keeps its own rates.
        auxiliary: Weight of the loss of each auxiliary classifier; 0 leaves them untrained.
        clip: Largest norm of the gradient; 0 disables clipping.
        seed: Seed of the order of images and of everything else random.

    Raises:
        ConfigError: If a field is unknown or has a bad value; the message names the field.

    Example:
        >>> FitConfig.recipe("timm", epochs=50).loss
        'binary'
    """

    epochs: PositiveInt = 1
    batch_size: Annotated[int, Field(ge=2)] = 64
    optimizer: Literal["sgd", "adamw", "lamb"] = "sgd"
    learning_rate: NonNegativeFloat = 0.025
    weight_decay: NonNegativeFloat = 3e-4
    schedule: Literal["cosine", "constant", "steps"] = "cosine"
    warmup_epochs: NonNegativeFloat = 0.0
    milestones: Annotated[tuple[PositiveFloat, ...], Field(strict=False)] = ()
    patience: NonNegativeInt = 0
    loss: Literal["cross-entropy", "binary"] = "cross-entropy"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mixup: NonNegativeFloat = 0.0
    cutmix: NonNegativeFloat = 0.0
    randaugment: Annotated[int, Field(ge=0, le=30)] = 0
    cutout: NonNegativeInt = 0
    drop_path: Annotated[float, Field(ge=0, lt=1)] | None = None
    auxiliary: NonNegativeFloat = 0.0
    clip: NonNegativeFloat = 5.0
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        if (self.schedule == "steps") != bool(self.milestones):
            raise ValueError(f"milestones expected epochs with the schedule steps alone, got {[*self.milestones]}")
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs expected at most the {self.epochs} epochs, got {self.warmup_epochs}")
        return self

    @classmethod
    def recipe(cls, name: str, **changes: Any) -> FitConfig:
        """One of :data:`RECIPES` with ``changes``; the warm-up keeps its share of the epochs.

        Raises:
            ValueError: If there is no such recipe; similar names are suggested.
            ConfigError: If a change has an unknown name or a bad value.
        """
        if name not in RECIPES:
            hint = suggestion(name, RECIPES)
            raise ValueError(f"unknown recipe {name!r}, expected one of {', '.join(RECIPES)}{hint}")
        recipe = RECIPES[name]
        if isinstance(epochs := changes.get("epochs"), int):
            changes = {"warmup_epochs": recipe.warmup_epochs * epochs / recipe.epochs, **changes}
        return recipe.replace(**changes)


RECIPES: Final = {
    "sgd": FitConfig(),
    "adamw": FitConfig(optimizer="adamw", learning_rate=1e-3, weight_decay=0.05),
    "timm": FitConfig(
        epochs=100, batch_size=2048, optimizer="lamb", learning_rate=8e-3, weight_decay=0.02, warmup_epochs=5,
        loss="binary", mixup=0.1, cutmix=1.0, randaugment=6, clip=1.0,
    ),
}  # fmt: skip
"""``sgd``: as GHN-2 trains networks (arXiv 2110.13100). ``timm``: procedure A3 of arXiv 2110.00476 without its repeated
augmentation; gradients are clipped to the norm 1, the default of timm's LAMB."""
