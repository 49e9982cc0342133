"""How a network is trained, as data."""

from __future__ import annotations

import dataclasses
from typing import Any, Final, Literal

from ..utils.fields import check_choices, check_integers, check_numbers, refuse
from ..utils.suggest import suggestion

Optimizer = Literal["sgd", "adamw", "lamb"]
Loss = Literal["cross-entropy", "binary"]

_LARGEST: Final = 30
_NUMBERS: Final = ("learning_rate", "weight_decay", "warmup_epochs", "label_smoothing", "mixup", "cutmix", "clip")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitConfig:
    r"""Everything that the training of a network depends on but the network and the images.

    The learning rate rises linearly during the warm-up and follows a cosine to 0 after it.

    Args:
        epochs: Passes over the training images.
        batch_size: Images in a step.
        optimizer: ``"sgd"`` with Nesterov momentum 0.9, ``"adamw"``, or ``"lamb"``, which needs timm.
        learning_rate: Its largest value.
        weight_decay: Of the optimizer.
        warmup_epochs: Length of the warm-up.
        loss: ``"cross-entropy"``, or ``"binary"``: binary cross-entropy for each class, as in timm's recipes.
        label_smoothing: Share of a label that is spread over all classes.
        mixup: :math:`\alpha` of mixup (arXiv 1710.09412); 0 for none.
        cutmix: :math:`\alpha` of CutMix (arXiv 1905.04899); 0 for none. With both, each step uses one of them.
        randaugment: Magnitude of RandAugment (arXiv 1909.13719), up to 30; 0 for none.
        clip: Largest norm of the gradient; 0 for any.
        seed: Seed of the order of images and of all that is drawn.

    Raises:
        ValueError: If a value is out of range; the message names the field.

    Example:
        >>> FitConfig.recipe("timm", epochs=50).loss
        'binary'
    """

    epochs: int = 1
    batch_size: int = 64
    optimizer: Optimizer = "sgd"
    learning_rate: float = 0.025
    weight_decay: float = 3e-4
    warmup_epochs: float = 0.0
    loss: Loss = "cross-entropy"
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    randaugment: int = 0
    clip: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_choices(self, {"optimizer": Optimizer, "loss": Loss})
        check_integers(self, {"epochs": 1, "batch_size": 2, "seed": 0, "randaugment": 0})
        check_numbers(self, _NUMBERS)
        if self.randaugment > _LARGEST:
            refuse(self, "randaugment", f"an integer up to {_LARGEST}")
        if self.label_smoothing >= 1:
            refuse(self, "label_smoothing", "a number below 1")
        if self.warmup_epochs > self.epochs:
            refuse(self, "warmup_epochs", f"no more than the {self.epochs} epochs")

    @classmethod
    def recipe(cls, name: str, **changes: Any) -> FitConfig:
        """One of :data:`RECIPES`, with ``changes`` applied.

        With another number of epochs the warm-up is the same share of them.

        Raises:
            ValueError: If there is no such recipe, for which near names are suggested, or a change is out of range.
        """
        if name not in RECIPES:
            hint = suggestion(name, RECIPES)
            raise ValueError(f"unknown recipe {name!r}, expected one of {', '.join(RECIPES)}{hint}")
        recipe = RECIPES[name]
        if isinstance(epochs := changes.get("epochs"), int):
            changes = {"warmup_epochs": recipe.warmup_epochs * epochs / recipe.epochs, **changes}
        return dataclasses.replace(recipe, **changes)


RECIPES: Final = {
    "sgd": FitConfig(),
    "adamw": FitConfig(optimizer="adamw", learning_rate=1e-3, weight_decay=0.05),
    "timm": FitConfig(
        epochs=100, batch_size=2048, optimizer="lamb", learning_rate=8e-3, weight_decay=0.02, warmup_epochs=5,
        loss="binary", mixup=0.1, cutmix=1.0, randaugment=6, clip=1.0,
    ),
}  # fmt: skip
"""``sgd``: that of GHN-2's networks (arXiv 2110.13100); ``adamw``; ``timm``: LAMB, binary cross-entropy, mixup,
CutMix, RandAugment and gradients of a norm of at most 1 (the default of timm's LAMB) as in procedure A3 of
arXiv 2110.00476, without its repeated augmentation."""
