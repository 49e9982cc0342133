"""The command line ``ghn-pyg``, mostly one module for each command.

Commands import what they need when they run: torch takes seconds, and ``--help`` should not.
"""

from __future__ import annotations

import io
import itertools
import os
import sys
import warnings
from typing import Annotated

import typer

from ..version import __version__
from . import (
    bench,
    checkpoints,
    coverage,
    deepnets,
    demo,
    finetune,
    graph,
    images,
    inherit,
    models,
    predict,
    rank,
    train,
)
from . import eval as evaluation
from .terminal import fail

app = typer.Typer(
    help="Predict all parameters of a neural network in one forward pass, with a Graph HyperNetwork (GHN).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (
    predict.predict,
    graph.graph,
    coverage.coverage,
    checkpoints.init,
    checkpoints.convert,
    models.models,
    train.train,
    finetune.finetune,
    inherit.inherit,
    rank.rank,
    demo.demo,
):
    app.command()(_command)
app.command("eval")(evaluation.evaluate)
app.add_typer(deepnets.app, name="deepnets")
app.add_typer(bench.app, name="bench")
app.add_typer(images.app, name="images")


_JIT = "ignore:`torch.jit.script` is deprecated"


def main() -> None:
    """Runs the command line."""
    # torch_geometric causes this warning on import, also in processes that a command starts. Its category differs
    # between versions of torch.
    warnings.filterwarnings("ignore", message=r"`torch\.jit\.script` is deprecated", module=r"torch\.jit\._script")
    filters = os.environ.get("PYTHONWARNINGS", "").split(",")
    if _JIT not in filters:
        os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (*filters, _JIT)))
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - closed, as by >&-
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # letters that a terminal does not have
    app(prog_name="ghn-pyg")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ghn-pyg {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    # Empty values come from shell variables that are not set. As paths they would mean the current folder.
    for before, argument in itertools.pairwise(sys.argv):
        name, equals, value = argument.partition("=")
        if not argument or (name.startswith("--") and equals and not value):
            fail(f"{name or before} expected a value, got an empty text")
