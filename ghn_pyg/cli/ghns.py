"""Commands on GHNs: make, convert and list them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import Seed, check_folder, make_console, make_table, print_names, print_rows, status, user_errors

if TYPE_CHECKING:
    import torch

Folder = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Folder to write; a checkpoint that it holds is replaced.")
]


def init(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A preset such as ghn3tm8; see `ghn-pyg models`.")],
    out: Folder,
    seed: Seed = 0,
    num_classes: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Classes of the networks to train it on, if not 1000.")
    ] = None,
) -> None:
    """Makes an untrained GHN."""
    from ..models.config import GHNConfig

    check_folder(out)
    with user_errors(ValueError):
        config = GHNConfig.preset(model, **({} if num_classes is None else {"num_classes": num_classes}))
    with status(f"Building {model}"):
        import torch

        from ..models.ghn import GHN

        torch.default_generator.manual_seed(seed)
        ghn = GHN(config)
    _save_ghn(ghn, model, out)


def convert(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="A file or folder of a GHN, or a published name.")
    ],
    out: Folder,
    half: Annotated[bool, typer.Option("--half", help="Save in half precision, which takes half the space.")] = False,
) -> None:
    """Converts a checkpoint to a folder with config.json and model.safetensors."""
    check_folder(out)
    with status(f"Loading {checkpoint}"):
        from ..models.checkpoints.errors import CheckpointError
        from ..models.checkpoints.locate import resolve
        from ..models.ghn import GHN

    with user_errors(CheckpointError):
        path = resolve(checkpoint)  # shows its own progress
        with status(f"Loading {checkpoint}"):
            ghn = GHN.from_pretrained(path)
    _save_ghn(ghn.half() if half else ghn, checkpoint, out)


def models(
    networks: Annotated[
        bool, typer.Option("--networks", help="List the networks of torchvision, timm and Transformers instead.")
    ] = False,
) -> None:
    """Lists the GHNs that can be made or downloaded, or the networks to predict."""
    if networks:
        with status("Looking"):
            names = _network_names()
        print_names(names)
        return
    with status("Measuring"):
        import torch

        from ..models.checkpoints.locate import BUNDLED, PUBLISHED_NAMES
        from ..models.checkpoints.read import read_checkpoint
        from ..models.config import PRESETS
        from ..models.ghn import GHN

        table = make_table("name", "parameters", "width", "channels", "layers", "heads", "classes", "trained")
        table.columns[-1].justify = "left"
        bundled = {name: read_checkpoint(path)[0] for name, path in BUNDLED.items()}
        for name, config in {**PRESETS, **bundled}.items():
            with torch.device("meta"):
                size = _size(GHN(config))
            figures = (config.hidden_channels, config.max_channels, config.layers or "", config.heads or "")
            where = "here" if name in bundled else "on the hub" if name in PUBLISHED_NAMES else ""
            table.add_row(name, f"{size:,}", *map(str, figures), str(config.num_classes), where)
    console = make_console()
    console.print(table)
    console.print("`ghn-pyg init NAME` makes one untrained; `--ghn NAME` takes those that are trained.")


def _network_names() -> list[str]:
    """The networks of all libraries that are installed."""
    from ..zoo.build import network_names

    names: list[str] = []
    for library in ("torchvision", "timm", "hf"):
        with contextlib.suppress(ImportError):
            names += network_names(library)
    return names


def _save_ghn(ghn: Any, name: str, out: Path) -> None:
    from ..models.checkpoints.errors import CheckpointError

    with status(f"Saving {out}"), user_errors(CheckpointError, OSError):
        ghn.save_pretrained(out)
    print_rows(name, [("parameters", f"{_size(ghn):,}"), ("saved", str(out))])


def _size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
