"""Scikit-learn's digits, which need no download."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..utils.optional import require
from .augmentation import Normalization
from .images import Images, TensorImages


def load_digits(size: int, normalization: Normalization | None) -> Images:
    """The 1,797 digits, resized; every fifth one of a class is a test image."""
    data = require("sklearn.datasets", extra="train", purpose="digits").load_digits()
    grey = torch.from_numpy(data.images).float().unsqueeze(1) / 16
    grey = F.interpolate(grey, (size, size), mode="bilinear", align_corners=False, antialias=True)
    pixels = (grey * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    labels = torch.from_numpy(data.target).long()
    number_in_class = F.one_hot(labels).cumsum(0).gather(1, labels.unsqueeze(1)).squeeze(1)  # from 1 on
    is_test = number_in_class % 5 == 0
    values = pixels[~is_test].float() / 255
    mean, std = normalization or ((values.mean().item(),) * 3, (values.std().item(),) * 3)
    train, test = (TensorImages(pixels[chosen], labels[chosen], mean, std) for chosen in (~is_test, is_test))
    return Images("digits", train, test, 10, size, mean, std, tuple(map(str, range(10))))
