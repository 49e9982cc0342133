"""``ghn-pyg finetune``: trains a network from its predicted parameters."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .files import load_ghn, safetensors_file
from .options import argument, flag, option
from .terminal import counted, fail, make_table, print_rows, status, user_errors

if TYPE_CHECKING:
    from torch import nn

    from ..data.images import Images
    from ..finetuning.config import FitConfig
    from ..models.ghn import GHN


def finetune(
    arch: Annotated[str, argument("ARCH", "A torchvision network, adapted to images of up to 64×64 pixels.")],
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
    out: Annotated[Path | None, option("FILE.safetensors", "Save the trained network's state dict.")] = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    workers: options.Workers = 0,
) -> None:
    """Train a network from its predicted parameters."""
    options.check_file(out, [".safetensors"])
    options.check_device(device)
    with status("Loading"), user_errors(ImportError):
        from safetensors.torch import save_model

        from ..data.images import ImagesError
        from ..data.load import load_images
        from ..evaluation.accuracy import evaluation_mode
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
    for name, network in networks.items():
        with status(f"Training {arch} from {name} parameters"), user_errors(ImagesError, OSError):
            try:
                table.add_row(name, *_train(network, dataset, config, device, workers))
            except FloatingPointError as error:
                failures[name] = str(error)
                continue
        if out is not None and name == "predicted":
            metadata = {"architecture": arch, "ghn": ghn, "images": dataset.name, "recipe": recipe}
            # Running averages of inputs that changed while training do not fit the trained network.
            with evaluation_mode(network, "recalibrated", dataset, config.seed, device, workers):
                try:
                    with safetensors_file(out) as unfinished:
                        save_model(network.cpu(), str(unfinished), metadata)
                    rows.append(("saved", str(out)))
                except OSError as error:  # shown after the results, which would be lost otherwise
                    save_error = str(error)
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

    from ..evaluation.subjects import torchvision_subjects
    from ..finetuning.initial_weights import start_from

    (subject,) = torchvision_subjects([arch], images.num_classes, images.image_size)
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
    start_from(ghn, predicted, subject.graph(predicted), seed=seed, **start)
    return {"predicted": predicted, **({"random": random} if compare else {})}


def _train(network: nn.Module, images: Images, config: FitConfig, device: str, workers: int) -> list[str]:
    """Accuracies before and after training, and the seconds that it took, for a table."""
    from ..evaluation.accuracy import Batches, evaluation_mode, measure
    from ..finetuning.train_network import Epoch, fit
    from ..training.fabric import make_fabric

    batches = Batches(images.test)
    accuracies: list[str] = []
    seconds = 0.0

    def add_accuracy() -> None:
        with evaluation_mode(network, "recalibrated", images, config.seed, device, workers):
            accuracies.append(f"{measure(network, batches, device, workers).top1:.1%}")

    def note(epoch: Epoch) -> None:
        nonlocal seconds
        seconds += epoch.seconds
        if epoch.epoch in (1, config.epochs):
            add_accuracy()

    network.to(device)
    add_accuracy()
    fit(network, images, config, fabric=make_fabric(device=device), workers=workers, progress=note)
    return [*accuracies, f"{seconds:.1f}"]
