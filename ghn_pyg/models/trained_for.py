"""What a GHN was trained for: the images and the networks."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from ..utils.config import Config

Colours = Annotated[tuple[float, float, float], Field(strict=False)]
Deviations = Annotated[tuple[PositiveFloat, PositiveFloat, PositiveFloat], Field(strict=False)]


class TrainedFor(Config):
    """What a GHN was trained for, which ``config.json`` keeps: the defaults of its evaluation and of fine-tuning.

    Args:
        data: Name or folder of the image data, as for :func:`~ghn_pyg.data.load_images`.
        image_size: Height and width of the images in pixels.
        mean: Mean of each colour, subtracted from pixels from 0 to 1.
        std: Standard deviation of each colour, by which they are then divided.
        classes: Names of the classes in the order of their labels; empty if they have none.
        widths: Widths of the networks.
        family: Family of the networks.
        held_out: Share of the training images that the GHN has not seen; see :meth:`~ghn_pyg.data.Images.hold_out`.

    Example:
        >>> trained_for = TrainedFor(data="digits", image_size=16, mean=(0.3,) * 3, std=(0.4,) * 3, widths=(8, 16))
        >>> trained_for.evaluation_width
        16
    """

    data: str
    image_size: PositiveInt
    mean: Colours
    std: Deviations
    classes: Annotated[tuple[str, ...], Field(strict=False)] = ()
    widths: Annotated[tuple[PositiveInt, ...], Field(strict=False, min_length=1)]
    family: str = "deepnets"
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def evaluation_width(self) -> int:
        """The width that is nearest to 32, at which networks are evaluated."""
        return min(self.widths, key=lambda width: abs(width - 32))
