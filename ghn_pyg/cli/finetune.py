"""``ghn-pyg finetune``: trains a network from its predicted parameters."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ..utils.suggest import choice, some
from . import options
from .files import load_ghn, safetensors_file
from .options import argument, flag, option
from .terminal import counted, epoch_bar, fail, make_table, print_rows, status, user_errors
from .trace_network import describe

_PRECISIONS: Final = ("32-true", "bf16-mixed", "16-mixed")

SAVE_SECONDS: Final = 60.0
"""Least time between two files of a network that is trained."""

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch import nn

    from ..data.images import Images
    from ..finetuning.config import FitConfig
    from ..finetuning.state import Epoch
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
    weight_decay: Annotated[float | None, option("RATE", "Weight decay, if not that of the recipe.")] = None,
    schedule: Annotated[
        str | None, option("NAME", "Learning rate after the warm-up: cosine (to 0), constant or steps.")
    ] = None,
    warmup_epochs: Annotated[float | None, option("N", "Epochs of warm-up, if not those of the recipe.")] = None,
    milestone: Annotated[
        list[float] | None, option("EPOCH", "Divide the learning rate by 10 there, with steps; repeatable.")
    ] = None,
    patience: Annotated[
        int, option("N", "Stop after N epochs without a better held-out accuracy; keep the best network.", min=0)
    ] = 0,
    shots: Annotated[
        int | None, option("N", "Train on N images of each class, drawn by the seed from those not held out.", min=1)
    ] = None,
    cutout: Annotated[
        int, option("PIXELS", "Set a square of this size to 0 in each image, such as 16 of 32 pixels.", min=0)
    ] = 0,
    drop_path: Annotated[
        float | None,
        option(
            "RATE",
            "Largest rate of drop path (stochastic depth), if not that of the network; 0 in the first block, growing "
            "linearly.",
        ),
    ] = None,
    auxiliary: Annotated[
        float,
        option(
            "WEIGHT",
            "Weight of the loss of auxiliary classifiers: those of GoogLeNet and Inception, and one that networks of "
            "DeepNets-1M get, such as 0.4.",
            min=0,
        ),
    ] = 0.0,
    precision: Annotated[str, option("NAME", "32-true, bf16-mixed or 16-mixed.")] = "32-true",
    noise: Annotated[float, option("BETA", "Noise on predicted weights, before training.", min=0)] = 1e-5,
    orthogonal: Annotated[int | None, option("N", "Orthogonalise the N-th weight and all after it.", min=0)] = None,
    keep_classifier: options.KeepClassifier = False,
    compare: Annotated[bool, flag("--compare", "Also train the network from random parameters.")] = False,
    pretrained: Annotated[
        str | None,
        option(
            "default|FILE",
            "Also train the network from weights of its library (default, downloaded) or of a file.",
        ),
    ] = None,
    held_out: Annotated[
        float,
        option("SHARE", "Share of the training images to measure epochs on, not to train on.", min=0, max=0.9),
    ] = 0.1,
    out: Annotated[
        Path | None,
        option(
            "FILE.safetensors",
            "Save the network, now and then, and at the end. FILE.run gets logs and checkpoints: the same command "
            "goes on where it was stopped.",
        ),
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    workers: options.Workers = 0,
) -> None:
    """Train a network from its predicted parameters. A command that was stopped goes on if it is given again.

    Start it with torchrun for several GPUs or machines, which then share the images of each batch.
    """
    options.check_file(out, [".safetensors"])
    options.check_device(device)
    with status("Loading"), user_errors(ImportError):
        from ..data.images import ImagesError
        from ..data.load import load_images
        from ..finetuning.config import FitConfig
        from ..finetuning.pretrained_weights import load_pretrained
        from ..finetuning.saved_network import NetworkInfo, save_network
        from ..finetuning.train_network import check_fit, check_network
        from ..models.checkpoints.errors import CheckpointError
        from ..training.checkpoints import TrainingError
        from ..training.fabric import make_fabric

    changes = {
        "epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "weight_decay": weight_decay,
        "schedule": schedule, "warmup_epochs": warmup_epochs, "milestones": milestone, "patience": patience,
        "seed": seed, "cutout": cutout, "drop_path": drop_path, "auxiliary": auxiliary,
    }  # fmt: skip
    if precision not in _PRECISIONS:
        fail(f"unknown precision {precision!r}{choice(precision, _PRECISIONS)}")
    fields = {name: f"--{name.replace('_', '-')}" for name in (*changes, "shots", "image_size")}
    fields |= {"milestones": "--milestone", "beta": "--noise", "first": "--orthogonal"}
    with user_errors(ValueError, TypeError, ImportError, OSError, fields=fields):
        config = FitConfig.recipe(recipe, **{name: value for name, value in changes.items() if value is not None})
        fabric = make_fabric(precision, device)
        model = load_ghn(ghn, str(fabric.device))
        trained_for = model.config.trained_for
        with fabric.rank_zero_first() if download else contextlib.nullcontext():
            dataset = load_images(
                images, data, image_size=image_size, num_classes=num_classes, download=download,
                skip_damaged=skip_damaged, trained_for=trained_for,
            )  # fmt: skip
        dataset.check_trained_for(trained_for)
        if not keep_classifier:
            advice = "add --keep-classifier to predict all but the classification layer"
            dataset.check_classes("the GHN", model.config.num_classes, advice)
        training = dataset.hold_out(held_out)
        if patience and not len(training.test):
            fail("--patience needs held-out images; give a larger --held-out")
        if shots is not None:
            training = training.few_shot(shots, seed)
        check_fit(training, config, fabric.world_size)
        compared = [*(["random"] if compare else []), *(["pretrained"] if pretrained else [])]
        start = {"noise": noise, "orthogonal": orthogonal, "keep_classifier": keep_classifier}
        networks = _make_networks(model, arch, dataset, compared, seed, start, auxiliary > 0)
        check_network(networks["predicted"], dataset, config)
        kept_names = []
        if pretrained is not None:
            kept_names = load_pretrained(networks["pretrained"], arch, pretrained, dataset.image_size)
    # With one epoch the last two are the same column.
    times = ("before", "after 1 epoch", f"after {counted(config.epochs, 'epoch')}")
    table = make_table("parameters", *dict.fromkeys(times), "seconds")
    rows = [
        ("network", counted(sum(p.numel() for p in networks["predicted"].parameters()), "parameter")),
        ("trained on", f"{counted(len(training.train), 'image')}; {len(training.test):,} are held out"),
    ]
    if pretrained is not None:
        rows.append(("pretrained", f"all but {some(kept_names)}" if kept_names else "all parameters"))
    info = NetworkInfo.of_images(arch, ghn, dataset, auxiliary > 0)
    settings = {"held_out": held_out, "shots": shots, "precision": precision, **start, **info.to_dict()}
    del settings["data"]  # it may move
    failures: dict[str, str] = {}
    save_error = ""

    def save(network: nn.Module) -> None:
        nonlocal save_error
        try:
            with safetensors_file(out or Path()) as unfinished:
                save_network(network, unfinished, info)
            save_error = ""
        except OSError as error:  # shown after the results, which would be lost otherwise
            save_error = str(error)

    for name, network in networks.items():
        kept = save if out is not None and name == "predicted" and fabric.is_global_zero else None
        folder = None if out is None else out.with_suffix(".run") / name
        # A new one for each network, which has a loss scale of its own in half precision.
        engine = fabric if name == "predicted" else make_fabric(precision, device)
        trained = _Training(network, f"{arch}, {name}", dataset, training, config, engine, workers, kept)
        with user_errors(ImagesError, OSError, TrainingError, CheckpointError):
            try:
                more = {"weights": pretrained} if name == "pretrained" else {}
                accuracies = trained.run(folder, {**settings, **more})
            except FloatingPointError as error:
                failures[name] = str(error)
                continue
            except KeyboardInterrupt:
                if fabric.is_global_zero and folder is not None:
                    typer.echo(f"Stopped. The same command goes on after the last epoch in {folder}.", err=True)
                raise
        table.add_row(name, *accuracies)
        if trained.note:
            rows.append((name, trained.note))
        if kept is not None and not save_error:
            rows.append(("saved", str(out)))
    if not fabric.is_global_zero:
        return
    rows += [(f"{name} failed", error) for name, error in failures.items()]
    if out is not None:
        rows.append(("logs", f"{out.with_suffix('.run')}, with checkpoints"))
    print_rows(f"{arch} on {len(dataset.test):,} test images of {dataset.name}, by {ghn}", rows, table)
    if save_error:
        fail(save_error)
    if "predicted" in failures:
        raise typer.Exit(2)


def _make_networks(
    ghn: GHN, arch: str, images: Images, compared: list[str], seed: int, start: dict[str, Any], auxiliary: bool
) -> dict[str, nn.Module]:
    """The network with predicted parameters, and copies with random ones for comparison."""
    import torch

    from ..evaluation.subjects import named_subject
    from ..finetuning.initial_weights import start_from
    from ..tracing.trace import TracingError

    subject = named_subject(arch, images.num_classes, images.image_size, auxiliary=auxiliary)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random = subject.build()
    try:
        with torch.inference_mode():
            # Two, as norms of DeepNets-1M take the statistics of the batch.
            random.eval()(torch.zeros(2, 3, images.image_size, images.image_size))
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
    return {"predicted": predicted, **{name: copy.deepcopy(random) for name in compared}}


@dataclasses.dataclass
class _Training:
    """The training of one network.

    Args:
        network: The network.
        description: Its name for the progress bar.
        images: Training and test images.
        training: Those to train on, with held-out ones in place of the test images.
        config: How to train.
        fabric: The engine.
        workers: Processes that load images.
        save: Called after the last epoch, and after earlier ones at most once a minute.
    """

    network: nn.Module
    description: str
    images: Images
    training: Images
    config: FitConfig
    fabric: Fabric
    workers: int
    save: Callable[[nn.Module], None] | None
    note: str = dataclasses.field(default="", init=False)

    def run(self, folder: Path | None, settings: dict[str, Any]) -> list[str]:
        """Accuracies before and after training, and the seconds that it took, for a table."""
        from ..finetuning.train_network import fit

        epochs: list[Epoch] = []
        saved, held_out = time.monotonic(), ""
        steps = len(self.training.train) // self.config.batch_size

        def note(epoch: Epoch) -> None:
            nonlocal saved, held_out
            epochs.append(epoch)
            held_out = "" if math.isnan(epoch.val_top1) else f", held-out {epoch.val_top1:.1%}"
            if self.save and 0 < epoch.epoch < self.config.epochs and time.monotonic() - saved > SAVE_SECONDS:
                self.save(self.network)
                saved = time.monotonic()

        self.network.to(self.fabric.device)
        visible = self.fabric.is_global_zero
        with epoch_bar(f"{self.description}: ", self.config.epochs, visible) as update:
            fit(
                self.network, self.training, self.config, fabric=self.fabric, workers=self.workers, folder=folder,
                settings=settings, measure=self._measure, progress=note,
                on_step=lambda step, loss: update(step / steps, f"loss {loss.item():.3f}{held_out}"),
            )  # fmt: skip
        if self.config.patience:
            best = max(epochs[1:], key=lambda epoch: epoch.val_top1)
            done = counted(epochs[-1].epoch, "epoch")
            self.note = f"the best of {done} is epoch {best.epoch}, with {best.val_top1:.1%} of held-out images"
        accuracies = [epoch.test_top1 for epoch in epochs[:2]]
        if self.config.epochs > 1:
            accuracies.append(self._accuracy(self.images))
        if self.save:
            self.save(self.network)
        return [*(f"{accuracy:.1%}" for accuracy in accuracies), f"{sum(epoch.seconds for epoch in epochs):.1f}"]

    def _measure(self, epoch: int) -> tuple[float, float]:
        """Accuracies on held-out images and, before training and after the first epoch, on test images."""
        return self._accuracy(self.training), self._accuracy(self.images) if epoch <= 1 else math.nan

    def _accuracy(self, images: Images) -> float:
        from ..evaluation.accuracy import Batches, evaluation_mode, measure

        if not len(images.test):  # none are held out
            return math.nan
        device, workers = self.fabric.device, self.workers
        # Running averages of inputs that changed while training do not fit the trained network.
        with evaluation_mode(self.network, "recalibrated", self.training, self.config.seed, device, workers):
            return measure(self.network, Batches(images.test), device, workers, self.fabric).top1
