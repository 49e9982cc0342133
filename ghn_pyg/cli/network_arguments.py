"""What commands on networks share: how a network and its inputs are named, and how it is built."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..zoo.names import FORMS, InputSpec, check_inputs, make_inputs, parse_input, parse_source
from .console import status, user_errors

if TYPE_CHECKING:
    import torch

Network = Annotated[
    str, typer.Argument(metavar="SOURCE", help=f"The network: {FORMS}. `ghn-pyg models --networks` lists names.")
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="SHAPE",
        help="What the network takes, if not what it declares: 1x3x32x32, with a type 1x16:long, with a keyword "
        "ids=1x16:long; repeatable.",
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Fail where a weight matrix would not be predicted.")]


def check_sources(sources: Iterable[str], inputs: Sequence[str] | None) -> list[InputSpec]:
    """Ends the command where a network or an input is named in no known way; returns the inputs."""
    with user_errors(ValueError):
        for source in sources:
            parse_source(source)
        specs = [parse_input(text) for text in inputs or ()]
        check_inputs(specs)
    return specs


def build(source: str, inputs: Sequence[InputSpec]) -> tuple[torch.nn.Module, Any]:
    """A network without memory, and its example inputs; ends the command where there is no such network."""
    from ..zoo.build import skeleton

    with status(f"Building {source}"), user_errors(ValueError, ImportError):
        network, given = skeleton(source)
        return network, make_inputs(inputs) if inputs else given
