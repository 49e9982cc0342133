"""Libraries of networks for images."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from .common import Made, Networks, image

_PLACE: Final = torch.full((2,), 3)
# Inputs of the networks that take no image.
_OTHER_INPUTS: Final[dict[str, Any]] = {
    "voca": lambda: (torch.rand(2, 1, 16, 29), _PLACE),
    "nvpattexp": lambda: (torch.rand(2, 8, 16, 29), _PLACE),
    "visemenet": lambda: (torch.rand(2, 8, 195), torch.full((2, 76), 3)),
    "propainter_rfc": lambda: (torch.rand(1, 3, 2, 64, 64), torch.rand(1, 3, 1, 64, 64)),
    "propainter": lambda: (torch.rand(1, 5, 2, 128, 128), torch.rand(1, 5, 1, 128, 128)),
    "raft": lambda: (image(128), image(128)),
}


def pytorchcv() -> Networks:
    """The first and the last network of each of the library's modules."""
    from pytorchcv.model_provider import _models

    families: dict[str, list[str]] = {}
    for name, function in _models.items():
        families.setdefault(function.__module__.rpartition(".")[2], []).append(name)
    ends = {name: family for family, names in families.items() for name in (names[0], names[-1])}
    return {name: lambda name=name, family=family: _pytorchcv(name, family) for name, family in ends.items()}


def _pytorchcv(name: str, family: str) -> Made:
    from pytorchcv.model_provider import get_model

    if family.startswith(("quartznet", "jasper")):
        model = get_model(name, in_channels=64, from_audio=False)
        return model, (torch.rand(1, 64, 96), torch.tensor([96]))
    model = get_model(name)
    if family in _OTHER_INPUTS:
        return model, _OTHER_INPUTS[family]()
    height, width = getattr(model, "in_size", (224, 224))
    if height > 256 and hasattr(model, "fixed_size"):
        height = width = 256
        model = get_model(name, in_size=(height, width))
    return model, torch.rand(1, getattr(model, "in_channels", 3), height, width)


def ultralytics() -> Networks:
    """The networks of all configurations in the package, of the smallest size."""
    import ultralytics as library

    folder = Path(library.__file__).parent / "cfg" / "models"
    return {path.stem: lambda path=path: _ultralytics(path) for path in sorted(folder.rglob("*.yaml"))}


def _ultralytics(path: Path) -> Made:
    from ultralytics.nn.tasks import yaml_model_load
    from ultralytics.utils import LOGGER

    LOGGER.setLevel("ERROR")
    config = yaml_model_load(str(path))
    for *_, options in config["backbone"]:
        options[:] = [None if option == "DEFAULT" else option for option in options]  # weights of torchvision
    config["scale"] = next(iter(config.get("scales", {})), "")
    model: nn.Module = _task(path.stem)(config, verbose=False)
    return model, image(64)


def _task(name: str) -> Any:
    from ultralytics.nn import tasks

    kinds = {"-cls": "Classification", "-pose": "Pose", "-obb": "OBB", "rtdetr": "RTDETRDetection", "world": "World",
             "yoloe": "YOLOESeg" if "-seg" in name else "YOLOE", "-seg": "Segmentation", "-depth": "Depth",
             "-sem": "SemanticSegmentation"}  # fmt: skip
    return getattr(tasks, next((kind for part, kind in kinds.items() if part in name), "Detection") + "Model")
