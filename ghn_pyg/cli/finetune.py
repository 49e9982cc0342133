"""The command that trains a network from a prediction."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import (
    Device,
    Seed,
    check_device,
    check_output,
    counted,
    fail,
    make_table,
    print_rows,
    status,
    user_errors,
)
from .eval import Data, DataFolder, Download, ImageSize, NumClasses

if TYPE_CHECKING:
    from torch import nn

    from ..data import Images
    from ..finetuning.config import FitConfig
    from ..models.ghn import GHN


def finetune(
    arch: Annotated[
        str, typer.Argument(metavar="ARCH", help="A torchvision network; up to 64 pixels adapted to them.")
    ],
    ghn: Annotated[str, typer.Option(metavar="NAME_OR_FILE", help="The GHN: a file, a folder, or a name.")] = "digits",
    images: Data = "digits",
    data: DataFolder = Path("data"),
    download: Download = False,
    image_size: ImageSize = None,
    num_classes: NumClasses = None,
    recipe: Annotated[str, typer.Option(metavar="NAME", help="sgd, adamw or timm.")] = "sgd",
    epochs: Annotated[int | None, typer.Option(min=1, metavar="N", help="Epochs, if not those of the recipe.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Images in a step, if not those of the recipe.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(metavar="RATE", help="Largest learning rate, if not that of the recipe.")
    ] = None,
    noise: Annotated[float, typer.Option(min=0, metavar="BETA", help="Noise on predicted weights.")] = 1e-5,
    orthogonal: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Make the weights from the N-th on orthogonal.")
    ] = None,
    keep_classifier: Annotated[
        bool, typer.Option("--keep-classifier", help="Predict all but the last layer, for another number of classes.")
    ] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Train the network from random values as well.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.safetensors", help="Where to save the trained network's state dict.")
    ] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    workers: Annotated[int, typer.Option(min=0, metavar="N", help="Processes that read images.")] = 0,
) -> None:
    """Trains a network from its predicted parameters."""
    if out is not None:
        check_output(out, [".safetensors"], "the network")
    check_device(device)
    with status("Loading"), user_errors(ImportError):
        from ..data import ImagesError, load_images
        from ..evaluation.accuracy import norms
        from ..evaluation.evaluate import check_torchmetrics
        from ..finetuning.config import FitConfig
        from ..finetuning.train_network import check_fit
        from ..models.checkpoints.hub import resolve
        from ..models.checkpoints.key_names import CheckpointError
        from ..models.ghn import GHN

        check_torchmetrics()
    options = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed}
    with user_errors(ValueError, TypeError, ImportError, ImagesError, CheckpointError):
        config = FitConfig.recipe(recipe, **{name: value for name, value in options.items() if value is not None})
        model = GHN.from_pretrained(resolve(ghn)).to(device)
        pictures = load_images(images, data, image_size=image_size, num_classes=num_classes, download=download)
        if not keep_classifier:
            advice = "add --keep-classifier to predict all but the last layer"
            pictures.check_classes("the GHN", model.config.num_classes, advice)
        check_fit(pictures, config)
        start = {"noise": noise, "orthogonal": orthogonal, "keep_classifier": keep_classifier}
        networks = _networks(model, arch, pictures, compare, seed, start)
    table = make_table("parameters", "before", *(["after 1 epoch"] if config.epochs > 1 else []),
                       f"after {counted(config.epochs, 'epoch')}", "seconds")  # fmt: skip
    failures: dict[str, str] = {}
    rows = [("network", counted(sum(p.numel() for p in networks["predicted"].parameters()), "parameter"))]
    unsaved = ""
    for name, network in networks.items():
        with status(f"Training {arch} from {name} parameters"), user_errors(ImagesError, OSError):
            try:
                table.add_row(name, *_train(network, pictures, config, device, workers))
            except FloatingPointError as error:
                failures[name] = str(error)
                continue
        if out is not None and name == "predicted":
            about = {"architecture": arch, "ghn": ghn, "images": images, "recipe": recipe}
            # What batch norms have averaged while their inputs changed would not fit the trained network.
            with norms(network, "recalibrated", pictures, config.seed, device, workers):
                unsaved = _save(out, network, about)  # what training gave is told before that it cannot be saved
            rows += [] if unsaved else [("saved", str(out))]
    rows += [(f"{name} failed", error) for name, error in failures.items()]
    print_rows(f"{arch} on {len(pictures.test):,} test images of {images}, by {ghn}", rows, table)
    if unsaved:
        fail(f"cannot save the network: {unsaved}")
    if "predicted" in failures:
        raise typer.Exit(2)


def _networks(
    ghn: GHN, arch: str, images: Images, compare: bool, seed: int, start: dict[str, Any]
) -> dict[str, nn.Module]:
    """The network with predicted parameters, and with random ones if it is to be compared."""
    import torch

    from ..evaluation.subjects import torchvision_subjects
    from ..finetuning import start_from

    (subject,) = torchvision_subjects([arch], images.num_classes, images.image_size)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random = subject.build()
    _check_size(random, arch, images)
    predicted = copy.deepcopy(random)
    start_from(ghn, predicted, subject.graph(predicted), seed=seed, **start)
    return {"predicted": predicted, **({"random": random} if compare else {})}


def _check_size(network: nn.Module, arch: str, images: Images) -> None:
    """Raises a ValueError for a network that cannot take such images."""
    import torch

    try:
        with torch.inference_mode():
            network.eval()(torch.zeros(1, 3, images.image_size, images.image_size))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"{arch} cannot take images of {images.image_size} pixels: {error}; give another size by --image-size"
        ) from error


def _train(network: nn.Module, images: Images, config: FitConfig, device: str, workers: int) -> list[str]:
    """Accuracy before and after training, and the time that it took, for a table."""
    from ..evaluation.accuracy import Batches, measure, norms
    from ..finetuning.train_network import Epoch, fit
    from ..training.fabric import make_fabric

    batches = Batches(images.test)
    found: list[str] = []
    seconds = 0.0

    def accuracy() -> str:
        with norms(network, "batch", images, config.seed, device):
            return f"{measure(network, batches, device, workers).top1:.1%}"

    def note(epoch: Epoch) -> None:
        nonlocal seconds
        seconds += epoch.seconds
        if epoch.epoch in (1, config.epochs):
            found.append(accuracy())

    network.to(device)
    found.append(accuracy())
    fit(network, images, config, fabric=make_fabric(device=device), workers=workers, progress=note)
    return [*found, f"{seconds:.1f}"]


def _save(out: Path, network: nn.Module, metadata: dict[str, str]) -> str:
    """Saves a network; returns why it could not be, or nothing."""
    from safetensors import SafetensorError
    from safetensors.torch import save_model

    from ..utils.atomic_files import replacing

    try:
        with status(f"Saving {out}"), replacing(out) as unfinished:
            save_model(network.cpu(), str(unfinished), metadata)
    except (OSError, SafetensorError) as error:
        return str(error) or type(error).__name__
    return ""
