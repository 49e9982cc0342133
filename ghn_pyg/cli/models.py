"""``ghn-pyg models``: lists GHNs, or networks by name."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from .options import flag
from .terminal import make_console, make_table, print_line, status


def models(
    networks: Annotated[bool, flag("--networks", "List the networks of torchvision, timm and Transformers.")] = False,
) -> None:
    """List the GHNs to make or download, or the networks to predict."""
    if networks:
        names: list[str] = []
        with status("Listing networks"):
            from ..zoo.build import network_names

            for library in ("torchvision", "timm", "hf"):
                with contextlib.suppress(ImportError):
                    names += network_names(library)
        typer.echo("\n".join(names))
        return
    with status("Listing GHNs"):
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
                size = sum(parameter.numel() for parameter in GHN(config).parameters())
            figures = (config.hidden_channels, config.max_channels, config.layers or "", config.heads or "")
            where = "bundled" if name in bundled else "on the hub" if name in PUBLISHED_NAMES else ""
            table.add_row(name, f"{size:,}", *map(str, figures), str(config.num_classes), where)
    make_console().print(table)
    print_line("`ghn-pyg init NAME` makes an untrained GHN; `--ghn NAME` uses a trained one.")
