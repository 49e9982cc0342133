"""The command that shows what a GHN does."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from .console import Seed, check_output, counted, make_table, print_rows, status, user_errors

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data import Images

_SHOWN: Final = 20
_EPOCHS: Final = 1


def demo(
    network: Annotated[
        str, typer.Option(metavar="ARCH", help="A torchvision network; it is adapted to images of 16 pixels.")
    ] = "resnet50",
    ghn: Annotated[str, typer.Option(metavar="NAME_OR_FILE", help="A GHN for ten classes.")] = "digits",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to save a picture, as .png, .svg or .pdf.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Predicts a network that the GHN never saw, and compares it with random and with trained ones on digits."""
    if out is not None:
        check_output(out, [".png", ".svg", ".pdf"], "a picture")
    with status("Loading"), user_errors(ImportError):
        import torch

        from ..data import load_images
        from ..evaluation.evaluate import check_torchmetrics
        from ..evaluation.subjects import torchvision_subjects
        from ..models.checkpoints.hub import resolve
        from ..models.checkpoints.key_names import CheckpointError
        from ..models.ghn import GHN
        from ..utils.optional import require

        check_torchmetrics()
        if out is not None:
            require("matplotlib.figure", "plot", "pictures")
        images = load_images("digits")
        with user_errors(ValueError, CheckpointError):
            (subject,) = torchvision_subjects([network], images.num_classes, images.image_size)
            model = GHN.from_pretrained(resolve(ghn))
            images.check_classes("the GHN", model.config.num_classes)
        with torch.random.fork_rng(devices=[]), user_errors(ValueError, TypeError):
            torch.default_generator.manual_seed(seed)
            random = subject.build()
    predicted, trained, times = copy.deepcopy(random), copy.deepcopy(random), {}
    with status(f"Predicting {network}"), user_errors(ValueError):
        began = time.perf_counter()
        model(predicted)
        times["predicted"] = time.perf_counter() - began
    with status(f"Training {network}"), user_errors(FloatingPointError, ImportError):
        began = time.perf_counter()
        _train(trained, images, seed)
        times["trained"] = time.perf_counter() - began
    networks = {
        "random": random,
        "predicted": predicted,
        f"{_EPOCHS} epoch of SGD": trained,
    }
    with status("Measuring"):
        accuracies, choices = _measure(networks, images)
    table = make_table("parameters", "top-1", "seconds")
    seconds = ("", f"{times['predicted']:.2f}", f"{times['trained']:.2f}")
    for (name, accuracy), taken in zip(accuracies.items(), seconds, strict=True):
        table.add_row(name, f"{accuracy:.1%}", taken)
    rows = [("network", f"{counted(sum(p.numel() for p in random.parameters()), 'parameter')}, adapted to 16 pixels")]
    if out is not None:
        with status("Drawing"), user_errors(ImportError, OSError):
            from ..viz.evaluation_plots import plot_choices

            plot_choices(accuracies, choices, images, range(_SHOWN), out)
        rows.append(("saved", str(out)))
    print_rows(f"{network} on {len(images.test):,} held-out digits, by {ghn}", rows, table)


def _train(network: nn.Module, images: Images, seed: int) -> None:
    from ..finetuning.config import FitConfig
    from ..finetuning.train_network import fit
    from ..training.fabric import make_fabric

    fit(network, images, FitConfig(epochs=_EPOCHS, seed=seed), fabric=make_fabric(device="cpu"))


def _measure(networks: dict[str, Any], images: Images) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Accuracy of each network, and what it chooses for the first images."""
    from ..evaluation.accuracy import Batches, measure, norms
    from ..viz.evaluation_plots import choose

    accuracies, choices, batches = {}, {}, Batches(images.test)
    for name, network in networks.items():
        with norms(network, "batch", images, 0, None):
            accuracies[name] = measure(network, batches).top1
            choices[name] = choose(network, images, range(_SHOWN))
    return accuracies, choices
