"""What a meta-training run is, as data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final, Literal

from ..families.deepnets import CIFAR, IMAGENET, NODE_BUDGET, WidthRule
from ..models.config import GHNConfig
from ..utils.fields import check_choices, check_flags, check_integers, check_numbers, refuse
from ..utils.yaml_config import check_fields, plain

Optimizer = Literal["adam", "adamw"]
Schedule = Literal["cosine", "steps"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    r"""Everything that a meta-training run depends on, so that equal configurations give equal runs.

    An epoch is one pass over the training images. All ranks together take ``meta_batch`` architectures and
    ``batch_size`` images in a step, whatever their number.

    Args:
        ghn: The GHN to train.
        start: Name or folder of the GHN whose weights the run starts from, as
            :func:`~ghn_pyg.models.ghn.from_pretrained` takes it; by default from new ones.
        images: Name of the image data; see :func:`~ghn_pyg.data.images.load_images`.
        folder: Where its files lie.
        download: Whether to download image data that is missing, where torchvision can.
        image_size: Height and width of the images in pixels; by default that of the image data.
        augment: Whether images are augmented.
        meta_batch: Architectures :math:`m` in a step.
        batch_size: Images in a step, on which every architecture runs.
        epochs: Length of the run.
        optimizer: ``"adam"`` or ``"adamw"``.
        learning_rate: Its largest value.
        weight_decay: Of the optimizer.
        schedule: ``"cosine"``: linear warm-up, then a cosine to 0; ``"steps"``: times 0.1 at each milestone.
        warmup_epochs: Length of the warm-up of ``"cosine"``.
        warmup_rate: Learning rate that the warm-up starts from.
        milestones: Epochs at which the learning rate falls.
        penalty: Weight of the Frobenius norms of predicted tensors in the loss.
        label_smoothing: Share of a label that is spread over all classes.
        clip: Largest norm of the gradient; 0 for any.
        balance: Whether the gradients of all networks are scaled to the same norm; see
            :func:`~ghn_pyg.training.step.meta_gradient`.
        calibrate: Whether the GHN starts with weights that make predictions of Kaiming's variance; see
            :func:`~ghn_pyg.training.calibration.calibrate`.
        curriculum: Share of the run during which networks grow from one cell to their full size; see
            :class:`~ghn_pyg.families.deepnets.Curriculum`.
        ema: Decay of the exponential moving average of the weights, which then is the trained GHN; 0 for none. It is
            smaller at first; see :func:`~ghn_pyg.training.schedules.average_decay`.
        precision: ``"32-true"``, ``"bf16-mixed"`` or ``"16-mixed"``.
        compile: Whether the GHN's encoder is compiled by ``torch.compile``, which may change the last digits. On a CPU
            it cannot pay: the encoder takes no more than 2 % of a step of GHN-3-T, the networks more than 90 %.
        widths: Which widths and head sizes networks are given.
        node_budget: Nodes that go through the GHN together.
        seed: Seed of everything that is drawn.
        max_skipped: After so many steps in a row whose loss or gradient is not finite, the run rolls back.
        checkpoint_every: Steps between checkpoints.
        keep: How many checkpoints are kept.

    Raises:
        ValueError: If a value is out of range; the message names the field.

    Example:
        >>> TrainConfig(ghn=GHNConfig.preset("ghn3tm8", num_classes=10)).learning_rate
        0.0004
    """

    ghn: GHNConfig
    start: str | None = None
    images: str = "digits"
    folder: str = "data"
    download: bool = False
    image_size: int | None = None
    augment: bool = True
    meta_batch: int = 8
    batch_size: int = 64
    epochs: int = 300
    optimizer: Optimizer = "adamw"
    learning_rate: float = 4e-4
    weight_decay: float = 1e-2
    schedule: Schedule = "cosine"
    warmup_epochs: int = 5
    warmup_rate: float = 1e-5
    milestones: tuple[int, ...] = (200, 250)
    penalty: float = 3e-5
    label_smoothing: float = 0.0
    clip: float = 5.0
    balance: bool = False
    calibrate: bool = False
    curriculum: float = 0.0
    ema: float = 0.0
    precision: Precision = "32-true"
    compile: bool = False
    widths: WidthRule = CIFAR
    node_budget: int = NODE_BUDGET
    seed: int = 0
    max_skipped: int = 20
    checkpoint_every: int = 500
    keep: int = 3

    def __post_init__(self) -> None:
        check_choices(self, {"optimizer": Optimizer, "schedule": Schedule, "precision": Precision})
        check_integers(self, _LEAST_INTEGERS)
        check_numbers(self, _NUMBERS)
        check_flags(self, ("augment", "balance", "calibrate", "compile", "download"))
        if self.start is not None and (not isinstance(self.start, str) or not self.start):
            refuse(self, "start", "the name or folder of a GHN, or nothing")
        if self.start and self.calibrate:
            refuse(self, "calibrate", f"false, as calibration is for new weights and the run starts from {self.start}")
        if self.curriculum > 1:
            refuse(self, "curriculum", "a share of the run, from 0 to 1")
        for field, kind in (("ghn", GHNConfig), ("widths", WidthRule)):
            if not isinstance(getattr(self, field), kind):
                refuse(self, field, f"a {kind.__name__}")
        self._check_data()
        if self.balance and self.precision == "16-mixed":
            # A network whose gradient overflows would be left out before the scaler could lower the scale.
            refuse(self, "balance", "false with 16-mixed; take bf16-mixed or 32-true")
        for field in ("label_smoothing", "ema"):
            if getattr(self, field) >= 1:
                refuse(self, field, "a number below 1")
        if self.schedule == "cosine" and self.warmup_epochs > self.epochs:
            refuse(self, "warmup_epochs", f"no more than the {self.epochs} epochs")

    def _check_data(self) -> None:
        for field in ("images", "folder"):
            if not isinstance(getattr(self, field), str):
                refuse(self, field, "a text")
        if self.image_size is not None and (isinstance(self.image_size, bool) or not isinstance(self.image_size, int)):
            refuse(self, "image_size", "a number of pixels, or nothing")
        epochs = self.milestones
        whole = isinstance(epochs, tuple) and all(type(epoch) is int and epoch > 0 for epoch in epochs)
        if not whole or list(epochs) != sorted(epochs):
            refuse(self, "milestones", "ascending numbers of epochs")

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON and YAML."""
        return plain(dataclasses.asdict(self) | {"widths": self.widths.to_dict()})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The inverse of :meth:`to_dict`.

        Args:
            values: Fields by name. ``ghn`` may also hold a ``preset`` and what differs from it, and ``widths`` may be
                ``"cifar"`` or ``"imagenet"``.

        Raises:
            ValueError: If a field is unknown, for which near names are suggested, missing or has a bad value.
        """
        check_fields(cls, values)
        fields = dict(values)
        if "ghn" not in fields:
            raise ValueError("TrainConfig.ghn is missing: say which GHN to train")
        fields["ghn"] = _ghn(fields["ghn"])
        if isinstance(fields.get("milestones"), list):
            fields["milestones"] = tuple(fields["milestones"])
        if "widths" in fields:
            fields["widths"] = _widths(fields["widths"])
        return cls(**fields)


_NUMBERS: Final = (
    "learning_rate", "weight_decay", "warmup_rate", "penalty", "label_smoothing", "clip", "curriculum", "ema",
)  # fmt: skip
_LEAST_INTEGERS: Final = {
    "meta_batch": 1, "batch_size": 2, "epochs": 1, "warmup_epochs": 0, "node_budget": 1, "seed": 0, "max_skipped": 1,
    "checkpoint_every": 1, "keep": 1,
}  # fmt: skip


def _ghn(values: Any) -> GHNConfig:
    """A GHN by its fields, or by a preset and the fields that differ from it."""
    if not isinstance(values, Mapping):
        raise ValueError(f"TrainConfig.ghn expected fields of GHNConfig, or a preset and changes to it, got {values!r}")
    fields = {name: value for name, value in values.items() if name != "preset"}
    base = GHNConfig.preset(str(values["preset"])).to_dict() if "preset" in values else {}
    return GHNConfig.from_dict(base | fields)


def _widths(values: Any) -> WidthRule:
    """A rule by its fields, or a published one by its name."""
    if isinstance(values, str) and values in _RULES:
        return _RULES[values]
    if not isinstance(values, Mapping):
        raise ValueError(
            f"TrainConfig.widths expected one of {', '.join(_RULES)} or fields of WidthRule, got {values!r}"
        )
    return WidthRule.from_dict(values)


_RULES: Final = {"cifar": CIFAR, "imagenet": IMAGENET}
