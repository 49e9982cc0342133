"""``ghn-pyg finetune``: trains a network from its predicted parameters."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from . import options
from .files import load_ghn, safetensors_file
from .options import argument, flag, option
from .terminal import counted, epoch_bar, fail, make_table, print_rows, status, user_errors
from .trace_network import describe

SAVE_SECONDS: Final = 60.0
"""Least time between two files of a network that is trained."""

if TYPE_CHECKING:
    from torch import nn

    from ..data.images import Images
    from ..finetuning.config import FitConfig
    from ..models.ghn import GHN


def finetune(
    arch: Annotated[
        str, argument("ARCH", f"{options.SUBJECTS}. Those of torchvision are adapted to up to 64×64 pixels.")
    ],
    ghn: options.GhnOption = "digits",
    images: options.ImageData = None,
    data: options.DataFolder = Path("data"),
    download: options.Download = False,
    skip_damaged: options.SkipDamaged = False,
    image_size: options.ImageSize = None,
    num_classes: options.NumClasses = None,
    recipe: Annotated[str, option("NAME", "The recipe: sgd, adamw or timm.")] = "sgd",
    epochs: Annotated[int | None, option("N", "Number of epochs, if not that of the recipe.", min=1)] = None,
    batch_size: Annotated[int | None, option("N", "Images in a batch, if not those of the recipe.", min=2)] = None,
    learning_rate: Annotated[float | None, option("RATE", "Largest learning rate, if not that of the recipe.")] = None,
    noise: Annotated[float, option("BETA", "Noise on predicted weights, before training.", min=0)] = 1e-5,
    orthogonal: Annotated[int | None, option("N", "Orthogonalise the N-th weight and all after it.", min=0)] = None,
    keep_classifier: options.KeepClassifier = False,
    compare: Annotated[bool, flag("--compare", "Also train the network from random parameters.")] = False,
    out: Annotated[
        Path | None, option("FILE.safetensors", "Save the network's state dict, now and then, and at the end.")
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    workers: options.Workers = 0,
) -> None:
    """Train a network from its predicted parameters."""
    options.check_single_process()
    options.check_file(out, [".safetensors"])
    options.check_device(device)
    with status("Loading"), user_errors(ImportError):
        from ..data.images import ImagesError
        from ..data.load import load_images
        from ..finetuning.config import FitConfig
        from ..finetuning.train_network import check_fit

    changes = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed}
    with user_errors(ValueError, TypeError, ImportError):
        config = FitConfig.recipe(recipe, **{name: value for name, value in changes.items() if value is not None})
        model = load_ghn(ghn, device)
        trained_for = model.config.trained_for
        dataset = load_images(
            images, data, image_size=image_size, num_classes=num_classes, download=download,
            skip_damaged=skip_damaged, trained_for=trained_for,
        )  # fmt: skip
        dataset.check_trained_for(trained_for)
        if not keep_classifier:
            advice = "add --keep-classifier to predict all but the classification layer"
            dataset.check_classes("the GHN", model.config.num_classes, advice)
        check_fit(dataset, config)
        start = {"noise": noise, "orthogonal": orthogonal, "keep_classifier": keep_classifier}
        networks = _make_networks(model, arch, dataset, compare, seed, start)
    # With one epoch the last two are the same column.
    times = ("before", "after 1 epoch", f"after {counted(config.epochs, 'epoch')}")
    table = make_table("parameters", *dict.fromkeys(times), "seconds")
    rows = [("network", counted(sum(p.numel() for p in networks["predicted"].parameters()), "parameter"))]
    failures: dict[str, str] = {}
    save_error = ""

    def save(network: nn.Module) -> None:
        nonlocal save_error
        metadata = {"architecture": arch, "ghn": ghn, "images": dataset.name, "recipe": recipe}
        try:
            _save(network, out, metadata)
            save_error = ""
        except OSError as error:  # shown after the results, which would be lost otherwise
            save_error = str(error)

    for name, network in networks.items():
        kept = save if out is not None and name == "predicted" else None
        with user_errors(ImagesError, OSError):
            try:
                accuracies = _train(network, f"{arch}, {name}", dataset, config, device, workers, kept)
            except FloatingPointError as error:
                failures[name] = str(error)
                continue
        table.add_row(name, *accuracies)
        if kept is not None and not save_error:
            rows.append(("saved", str(out)))
    rows += [(f"{name} failed", error) for name, error in failures.items()]
    print_rows(f"{arch} on {len(dataset.test):,} test images of {dataset.name}, by {ghn}", rows, table)
    if save_error:
        fail(save_error)
    if "predicted" in failures:
        raise typer.Exit(2)


def _make_networks(
    ghn: GHN, arch: str, images: Images, compare: bool, seed: int, start: dict[str, Any]
) -> dict[str, nn.Module]:
    """The network with predicted parameters and, if ``compare``, with random ones."""
    import torch

    from ..evaluation.subjects import named_subject
    from ..finetuning.initial_weights import start_from
    from ..tracing.trace import TracingError

    subject = named_subject(arch, images.num_classes, images.image_size)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random = subject.build()
    try:
        with torch.inference_mode():
            random.eval()(torch.zeros(1, 3, images.image_size, images.image_size))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"{arch} cannot take images of {images.image_size} pixels: {error}; give another size by --image-size"
        ) from error
    predicted = copy.deepcopy(random)
    try:
        graph = subject.graph(predicted)
    except TracingError as error:
        raise ValueError(describe(error, ". Give another size by --image-size")) from error
    start_from(ghn, predicted, graph, seed=seed, **start)
    return {"predicted": predicted, **({"random": random} if compare else {})}


def _save(network: nn.Module, out: Path | None, metadata: dict[str, str]) -> None:
    """Saves a network in evaluation mode, whose running statistics are recalibrated."""
    from safetensors.torch import save_model

    with safetensors_file(out or Path()) as unfinished:
        save_model(network, str(unfinished), metadata)


def _train(
    network: nn.Module, description: str, images: Images, config: FitConfig, device: str, workers: int,
    save: Callable[[nn.Module], None] | None,
) -> list[str]:  # fmt: skip
    """Accuracies before and after training, and the seconds that it took, for a table.

    ``save`` is called after the last epoch, and after earlier ones at most once a minute.
    """
    from ..evaluation.accuracy import Batches, evaluation_mode, measure
    from ..finetuning.train_network import fit
    from ..training.fabric import make_fabric

    batches = Batches(images.test)
    steps = len(images.train) // config.batch_size
    accuracies: list[str] = []
    seconds, saved = 0.0, time.monotonic()

    def finish_epoch(epoch: int, seconds_taken: float = 0.0) -> None:
        nonlocal seconds, saved
        seconds += seconds_taken
        shown = epoch in (0, 1, config.epochs)
        due = save is not None and epoch > 0 and (epoch == config.epochs or time.monotonic() - saved > SAVE_SECONDS)
        if not shown and not due:
            return
        # Running averages of inputs that changed while training do not fit the trained network.
        with evaluation_mode(network, "recalibrated", images, config.seed, device, workers):
            if shown:
                accuracies.append(f"{measure(network, batches, device, workers).top1:.1%}")
            if due and save is not None:
                save(network)
                saved = time.monotonic()

    network.to(device)
    finish_epoch(0)
    with epoch_bar(f"Training {description}: ", config.epochs) as update:
        fit(
            network, images, config, fabric=make_fabric(device=device), workers=workers,
            progress=lambda epoch: finish_epoch(epoch.epoch, epoch.seconds),
            on_step=lambda step, loss: update(step / steps, f"loss {loss.item():.3f}"),
        )  # fmt: skip
    return [*accuracies, f"{seconds:.1f}"]
