"""The command line ``ghn-pyg``.

Commands import what they need when they run: torch takes seconds, and ``--help`` should not.
"""

from __future__ import annotations

import collections
import contextlib
import enum
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from .version import __version__

if TYPE_CHECKING:
    import torch
    from rich.console import Console
    from rich.table import Table

    from .data import ArchData
    from .models.ghn import Prediction

app = typer.Typer(
    help="Predicts all parameters of a neural network in one forward pass, with a Graph HyperNetwork (GHN).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Architecture = Annotated[
    str, typer.Argument(metavar="ARCH", help="A torchvision classification network; see `ghn-pyg models --networks`.")
]
Seed = Annotated[
    int, typer.Option(min=0, max=2**32 - 1, metavar="N", help="Seed of everything that is drawn at random.")
]
Folder = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Folder to write; a checkpoint that it holds is replaced.")
]


class Precision(enum.StrEnum):
    """Types that predicted parameters can be saved as."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


def main() -> None:
    """Runs the command line."""
    # torch_geometric calls it on import; the category differs between torch versions.
    warnings.filterwarnings("ignore", message=r"`torch\.jit\.script` is deprecated", module=r"torch\.jit\._script")
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
    pass


@app.command()
def predict(
    arch: Architecture,
    ghn: Annotated[
        str,
        typer.Option(
            metavar="NAME_OR_FILE",
            help="The GHN: a file or folder, a published name such as ghn3tm8, or user/repository of the hub.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.safetensors", help="Where to save the predicted parameters by name."),
    ] = None,
    seed: Seed = 0,
    keep_classifier: Annotated[
        bool, typer.Option("--keep-classifier", help="Leave the classification layer out.")
    ] = False,
    dtype: Annotated[Precision, typer.Option(help="Type of the predicted parameters.")] = Precision.float32,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="Where to compute, such as cuda or cuda:1.")] = "cpu",
) -> None:
    """Predicts the parameters of a torchvision network."""
    if out is not None:
        _check_output(out, [".safetensors"], "the parameters")
    network, graph, graph_time = _trace(arch)
    _check_device(device)
    import torch

    from .models.ghn import GHN
    from .models.hub import resolve
    from .models.keys import CheckpointError
    from .models.published import published_norm

    local = os.path.exists(os.path.expanduser(ghn))
    with _user_errors(CheckpointError):
        path = resolve(ghn)  # shows its own progress
        with _status(f"Loading {ghn}"):
            model = GHN.from_pretrained(path).to(device)
    with _status(f"Predicting {arch}"):
        began = time.perf_counter()
        prediction = model.predict(graph, keep_classifier=keep_classifier, seed=seed, dtype=getattr(torch, dtype))
        if device != "cpu":
            torch.accelerator.synchronize(device)
        prediction_time = time.perf_counter() - began
    if out is not None:
        _save(out, prediction, {"architecture": arch, "ghn": ghn, "seed": str(seed)})

    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    norm = prediction.total_norm()
    # A file of the same name may be any GHN, and the published norms are of all parameters.
    published = None if local or keep_classifier else published_norm(arch, ghn.removesuffix(".pt"))
    compared = "" if published is None else f", published {published:.4f} ({norm / published - 1:+.4%})"
    rows = [
        ("graph", f"{_count(graph.num_nodes, 'node')}, {_count(graph.num_edges, 'edge')}"),
        ("predicted", _amount(prediction, sizes)),
        *_kept_rows(prediction.kept, sizes),
        ("total norm", f"{norm:.4f}{compared}"),
        ("time", f"graph {graph_time:.2f} s, prediction {prediction_time:.2f} s"),
    ]
    if out is not None:
        from rich.filesize import decimal

        rows.append(("saved", f"{out}, {decimal(out.stat().st_size)}"))
    _print_rows(f"{arch} by {ghn}", rows)


@app.command()
def graph(
    arch: Architecture,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to save the graph, as .graphml, .json or .svg (a picture)."),
    ] = None,
) -> None:
    """Shows the graph of a torchvision network."""
    with _status(f"Building {arch}"):
        import networkx as nx

        from .graphs.view import FORMATS, save_view

    if out is not None:
        _check_output(out, list(FORMATS), "a graph")
    network, data, seconds = _trace(arch)
    if out is not None:
        with _user_errors(OSError):
            save_view(data, out, arch)

    nodes: collections.Counter[str] = collections.Counter()
    parameters: collections.Counter[str] = collections.Counter()
    for kind, specs in zip(data.node_types, data.params, strict=True):
        nodes[kind] += 1
        parameters[kind] += sum(math.prod(spec.shape) for spec in specs)
    table = _table("node type", "nodes", "parameters")
    for kind, number in nodes.most_common():
        table.add_row(kind, f"{number:,}", f"{parameters[kind]:,}" if parameters[kind] else "")
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    rows = [
        ("nodes", f"{data.num_nodes:,}"),
        ("edges", f"{data.num_edges:,}"),
        ("depth", f"{nx.dag_longest_path_length(data.to_networkx())} edges on the longest path"),
        ("distance", f"{int(data.distance.max())} edges at most on the shortest path between two nodes, cut at 50"),
        ("predicted", _amount([spec.name for specs in data.params for spec in specs], sizes)),
        *_kept_rows(data.kept, sizes),
        ("time", f"{seconds:.2f} s"),
        *([("saved", str(out))] if out is not None else []),
    ]
    _print_rows(arch, rows, table)


@app.command()
def init(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A preset such as ghn3tm8; see `ghn-pyg models`.")],
    out: Folder,
    seed: Seed = 0,
    num_classes: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Classes of the networks to train it on, if not 1000.")
    ] = None,
) -> None:
    """Makes an untrained GHN."""
    with _status(f"Building {model}"):
        import torch

        from .models.config import GHNConfig
        from .models.ghn import GHN

        with _user_errors(ValueError):
            config = GHNConfig.preset(model, **({} if num_classes is None else {"num_classes": num_classes}))
        torch.manual_seed(seed)
        ghn = GHN(config)
    _save_ghn(ghn, model, out)


@app.command()
def convert(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="A published file, or a published name.")],
    out: Folder,
) -> None:
    """Converts a published checkpoint to a folder with config.json and model.safetensors."""
    with _status(f"Loading {checkpoint}"):
        from .models.ghn import GHN
        from .models.hub import resolve
        from .models.keys import CheckpointError

    with _user_errors(CheckpointError):
        path = resolve(checkpoint)  # shows its own progress
        with _status(f"Loading {checkpoint}"):
            ghn = GHN.from_pretrained(path)
    _save_ghn(ghn, checkpoint, out)


@app.command()
def models(
    networks: Annotated[bool, typer.Option("--networks", help="List torchvision's networks instead.")] = False,
) -> None:
    """Lists the GHNs that can be made or downloaded, or the networks to predict."""
    if networks:
        with _status("Looking"):
            from .vision import classification_models

            names = classification_models()
        _print_names(names)
        return
    with _status("Measuring"):
        import torch

        from .models.config import PRESETS
        from .models.ghn import GHN
        from .models.hub import PUBLISHED_NAMES

        table = _table("name", "parameters", "width", "channels", "layers", "heads", "on the hub")
        for name, config in PRESETS.items():
            with torch.device("meta"):
                size = _size(GHN(config))
            figures = (config.hidden_channels, config.max_channels, config.layers or "", config.heads or "")
            table.add_row(name, f"{size:,}", *map(str, figures), "yes" if name in PUBLISHED_NAMES else "")
    console = _console()
    console.print(table)
    console.print("`ghn-pyg init NAME` makes any of them, untrained; `--ghn NAME` takes those on the hub.")


def _trace(arch: str) -> tuple[torch.nn.Module, ArchData, float]:
    """The network without memory, its graph, and how long that took."""
    with _status(f"Building {arch}"):
        from .graphs.module import from_module
        from .vision import skeleton

        with _user_errors(ValueError):
            network = skeleton(arch)
        began = time.perf_counter()
        return network, from_module(network), time.perf_counter() - began


def _save(out: Path, prediction: Prediction, metadata: Mapping[str, str]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from .files import replacing

    header = {"format": "pt", "ghn_pyg": __version__, "kept": json.dumps(prediction.kept), **metadata}
    with _status(f"Saving {out}"), _user_errors(OSError), replacing(out) as unfinished:
        try:
            save_file(dict(prediction), unfinished, header)
        except SafetensorError as error:
            raise OSError(str(error)) from error


def _save_ghn(ghn: Any, name: str, out: Path) -> None:
    from .models.keys import CheckpointError

    with _status(f"Saving {out}"), _user_errors(CheckpointError, OSError):
        ghn.save_pretrained(out)
    _print_rows(name, [("parameters", f"{_size(ghn):,}"), ("saved", str(out))])


def _size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _check_output(out: Path, suffixes: Sequence[str], what: str) -> None:
    """Finds before the work what would only show when it is written."""
    folder = out.parent
    if out.suffix not in suffixes:
        _fail(f"cannot save {what} as {out}, expected a name that ends in {', '.join(suffixes)}")
    if not folder.is_dir():
        _fail(f"cannot write {out}: there is no folder {folder}; make it first")
    if out.is_dir() or not os.access(folder, os.W_OK):
        _fail(f"cannot write {out}: {'it is a folder' if out.is_dir() else f'the folder {folder} is read-only'}")


def _check_device(device: str) -> None:
    import torch

    found = ["cpu"]
    if (kind := torch.accelerator.current_accelerator(check_available=True)) is not None:
        found += [kind.type, *(f"{kind.type}:{number}" for number in range(torch.accelerator.device_count()))]
    if device not in found:
        _fail(f"there is no device {device!r} here, expected {' or '.join(found)}")


def _fail(message: str) -> NoReturn:
    typer.echo(f"{typer.style('Error:', fg='red', bold=True)} {' '.join(message.split())}", err=True)
    raise typer.Exit(2)


@contextlib.contextmanager
def _user_errors(*kinds: type[Exception]) -> Iterator[None]:
    """What users can mend ends as one line, everything else as a traceback."""
    try:
        yield
    except kinds as error:
        _fail(str(error))


def _console() -> Console:
    """Standard output; as wide as the terminal, or wide enough for one row a line in a pipe or file."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 240, highlight=False)


@contextlib.contextmanager
def _status(message: str) -> Iterator[None]:
    """Says on a terminal what takes so long."""
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(f"{escape(message)} …"):
        yield


def _table(first: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(first, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _print_rows(title: str, rows: Sequence[tuple[str, str]], table: Table | None = None) -> None:
    from rich.table import Table
    from rich.text import Text

    console = _console()
    console.print(Text(title, style="bold"))
    if table is not None:
        console.print(table)
    grid = Table.grid(padding=(0, 2))
    for label, text in rows:
        grid.add_row(Text(label, style="cyan"), Text(text))
    console.print(grid)


def _print_names(names: Sequence[str]) -> None:
    from rich.columns import Columns

    if sys.stdout.isatty():
        _console().print(Columns(names, column_first=True, padding=(0, 3)))
    else:
        typer.echo("\n".join(names))


def _kept_rows(kept: Mapping[str, str], sizes: Mapping[str, int]) -> list[tuple[str, str]]:
    """Kept parameters, one row for each reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in kept.items():
        reasons.setdefault(reason, []).append(name)
    return [("kept", f"{_amount(names, sizes)}: {reason}") for reason, names in reasons.items()] or [("kept", "none")]


def _amount(names: Sequence[str] | Mapping[str, Any], sizes: Mapping[str, int]) -> str:
    return f"{_count(len(names), 'tensor')}, {_count(sum(sizes[name] for name in names), 'parameter')}"


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


if __name__ == "__main__":
    main()
