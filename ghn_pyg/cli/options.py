"""Options and arguments that several commands share, and checks of their values that need no torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from ..utils.suggest import choice
from ..zoo.parse_name import NAME_FORMS
from .terminal import fail

# Repeated here because their modules import torch.
GRAPH_SUFFIXES: Final = (".graphml", ".json", ".svg")
SPLITS: Final = ("train", "val", "test", "wide", "deep", "dense", "bnfree", "search")
REPORT_SUFFIXES: Final = (".json", ".csv")
PICTURE_SUFFIXES: Final = (".png", ".svg", ".pdf")

Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, metavar="N", help="Seed of all random numbers.")]
# Its name is given because some versions of typer derive it from a similar metavar.
Device = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="Where to compute, such as cpu, cuda, cuda:1 or mps.")
]
Workers = Annotated[int, typer.Option(min=0, metavar="N", help="Number of processes that load images.")]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", metavar="NAME=VALUE", help="Set a field of CONFIG, such as epochs=5 or seeds=[0]; repeatable."
    ),
]

# Networks
Network = Annotated[
    str, typer.Argument(metavar="SOURCE", help=f"The network: {NAME_FORMS}. `ghn-pyg models --networks` lists names.")
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="SHAPE",
        help="Shape of an input, if the default does not fit: 1x3x32x32, with a type as in 1x16:long, with a keyword "
        "as in ids=1x16:long; repeatable.",
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Fail if a weight matrix is not predicted.")]
GraphFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Save the graph, as .svg (a picture), .graphml or .json.")
]
KeepClassifier = Annotated[bool, typer.Option("--keep-classifier", help="Do not predict the classification layer.")]

# GHNs
GHN_FORMS: Final = "a file, a folder, a published name such as ghn3tm8, digits, or user/repository of the hub"
GhnArgument = Annotated[str, typer.Argument(metavar="GHN", help=f"The GHN: {GHN_FORMS}.")]
GhnOption = Annotated[str, typer.Option("--ghn", metavar="NAME_OR_FILE", help=f"The GHN: {GHN_FORMS}.")]
CheckpointFolder = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Folder to write; a checkpoint in it is replaced.")
]

# Image data
ImageData = Annotated[
    str,
    typer.Option(metavar="NAME", help="Image data: digits, cifar10, a class of torchvision.datasets, or a folder."),
]
DataFolder = Annotated[Path, typer.Option(metavar="DIR", help="Folder with the files of torchvision's image data.")]
Download = Annotated[bool, typer.Option("--download", help="Download missing image data, if torchvision can.")]
ImageSize = Annotated[
    int | None, typer.Option(metavar="PIXELS", help="Height and width of the images, if not the default of the data.")
]
NumClasses = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Number of classes, if the image data does not declare it.")
]
Width = Annotated[int, typer.Option(min=8, metavar="N", help="Width of the networks of DeepNets-1M.")]
ReportFile = Annotated[Path | None, typer.Option(metavar="FILE", help="Save the results, as .json or .csv.")]


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
