"""Options and arguments that several commands share, and checks of their values that need no torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ..utils.suggest import choice
from ..zoo.parse_name import NAME_FORMS
from .terminal import fail

# Repeated here because their modules import torch.
GRAPH_SUFFIXES: Final = (".graphml", ".json", ".svg")
SPLITS: Final = ("train", "val", "test", "wide", "deep", "dense", "bnfree", "search")
REPORT_SUFFIXES: Final = (".json", ".csv")
PICTURE_SUFFIXES: Final = (".png", ".svg", ".pdf")


def option(metavar: str, text: str, *names: str, **limits: Any) -> Any:
    """An option with a value. Its name is that of the parameter, unless one is given."""
    return typer.Option(*names, metavar=metavar, help=text, **limits)


def flag(name: str, text: str) -> Any:
    """An option without a value."""
    return typer.Option(name, help=text)


def argument(metavar: str, text: str, **limits: Any) -> Any:
    """A positional argument."""
    return typer.Argument(metavar=metavar, help=text, **limits)


Seed = Annotated[int, option("N", "Seed of all random numbers.", min=0, max=2**32 - 1)]
# Its name is given because some versions of typer derive it from a similar metavar.
Device = Annotated[str, option("DEVICE", "Where to compute, such as cpu, cuda, cuda:1 or mps.", "--device")]
Workers = Annotated[int, option("N", "Number of processes that load images.", min=0)]
Changes = Annotated[
    list[str] | None,
    option("NAME=VALUE", "Set a field of CONFIG, such as epochs=5 or seeds=[0]; repeatable.", "--set", "-s"),
]

# Networks
Network = Annotated[str, argument("SOURCE", f"{NAME_FORMS}. `ghn-pyg models --networks` lists names.")]
Inputs = Annotated[
    list[str] | None,
    option(
        "SHAPE",
        "Shape of an input, such as 1x3x32x32, 1x16:long, ids=1x16:long, adj=9x9:sparse or data.x=9x5 (an "
        "attribute of an argument); repeatable.",
        "--input",
    ),
]
Strict = Annotated[bool, flag("--strict", "Fail if a weight matrix is not predicted.")]
GraphFile = Annotated[Path | None, option("FILE", "Save the graph, as .svg (a picture), .graphml or .json.")]
KeepClassifier = Annotated[bool, flag("--keep-classifier", "Do not predict the classification layer.")]

# GHNs
GHN_FORMS: Final = "A file, a folder, a published name such as ghn3tm8, digits, or user/repository of the hub."
GhnArgument = Annotated[str, argument("GHN", GHN_FORMS)]
GhnOption = Annotated[str, option("NAME_OR_FILE", GHN_FORMS, "--ghn")]
CheckpointFolder = Annotated[Path, option("DIR", "Folder to write; a checkpoint in it is replaced.", "--out")]

# Networks to measure and to train
SUBJECTS: Final = f"{NAME_FORMS}, test/3 (of a split of DeepNets-1M), darts, pdarts or vit"

# Image data
ImageData = Annotated[
    str | None,
    option(
        "NAME",
        "digits, cifar10, a class of torchvision.datasets, or a folder; by default what the GHN was trained on, else "
        "digits.",
    ),
]
DataFolder = Annotated[Path, option("DIR", "Folder with the files of torchvision's image data.")]
Download = Annotated[bool, flag("--download", "Download missing image data, if torchvision can.")]
SkipDamaged = Annotated[bool, flag("--skip-damaged", "Leave out images that cannot be read; reads all files once.")]
ImageSize = Annotated[int | None, option("PIXELS", "Height and width of the images, if not that of the GHN or data.")]
MAX_CLASSES: Final = 10**6
NumClasses = Annotated[
    int | None, option("N", "Number of classes, if the image data does not declare it.", min=1, max=MAX_CLASSES)
]
Width = Annotated[
    int | None,
    option("N", "Width of the networks of DeepNets-1M; by default that of the GHN's training nearest to 32.", min=8),
]
ReportFile = Annotated[Path | None, option("FILE", "Save the results, as .json or .csv.")]
PictureFile = Annotated[Path | None, option("FILE", "Save a picture, as .png, .svg or .pdf.")]


def check_single_process() -> None:
    """Checks that a command that has no use for them is not started with several processes, which would do the same."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        fail("this command runs in one process; start it without torchrun")


def check_splits(*splits: str) -> None:
    """Checks that DeepNets-1M has these splits."""
    for split in splits:
        if split not in SPLITS:
            fail(f"unknown split {split!r}{choice(split, SPLITS)}")


def check_folder(out: Path) -> None:
    """Checks, before the work, that a folder can be made and written to."""
    existing = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not existing.is_dir():
        fail(f"cannot write into the folder {out}: {existing} is a file")
    if not os.access(existing, os.W_OK):
        fail(f"cannot write into the folder {out}: {existing} is read-only")


def check_file(out: Path | None, suffixes: Sequence[str]) -> None:
    """Checks, before the work, that a file can be written, if one is wanted."""
    if out is None:
        return
    if out.suffix not in suffixes:
        fail(f"cannot write {out}: expected a name that ends in {', '.join(suffixes)}")
    if not out.parent.is_dir():
        fail(f"cannot write {out}: the folder {out.parent} does not exist")
    try:
        out.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:  # such as a name that is too long
        fail(f"cannot write {out}: {error.strerror}")
    if out.is_dir():
        fail(f"cannot write {out}: it is a folder")
    if not os.access(out.parent, os.W_OK):
        fail(f"cannot write {out}: the folder {out.parent} is read-only")


def check_device(device: str) -> None:
    """Checks that this machine has a device. It imports torch."""
    import torch

    devices = ["cpu"]
    if (kind := torch.accelerator.current_accelerator(check_available=True)) is not None:
        devices += [kind.type, *(f"{kind.type}:{index}" for index in range(torch.accelerator.device_count()))]
    if device not in devices:
        fail(f"unknown device {device!r}; this machine has {', '.join(devices)}")
