"""``ghn-pyg demo``: compares predicted, random and trained parameters of a network on a GHN's own images."""

from __future__ import annotations

import copy
import time
from typing import Annotated, Final

from . import options
from .files import load_ghn
from .options import option
from .terminal import counted, make_table, print_rows, status, user_errors

_SHOWN: Final = range(20)  # test images in the picture


def demo(
    network: Annotated[
        str, option("ARCH", "A torchvision network, adapted to images of up to 64×64 pixels.")
    ] = "resnet50",
    ghn: options.GhnOption = "digits",
    out: options.PictureFile = None,
    seed: options.Seed = 0,
) -> None:
    """Predict a network that the GHN has not seen, and compare it with random and trained ones on its images."""
    options.check_single_process()
    options.check_file(out, options.PICTURE_SUFFIXES)
    model = load_ghn(ghn)
    with status("Loading"), user_errors(ValueError, ImportError):
        import torch

        from ..data.load import load_images
        from ..evaluation.accuracy import Batches, evaluation_mode, measure
        from ..evaluation.subjects import torchvision_subjects
        from ..finetuning.config import FitConfig
        from ..finetuning.train_network import fit
        from ..training.fabric import make_fabric
        from ..utils.optional import require

        if out is not None:
            require("matplotlib.figure", "plot", "pictures")
        images = load_images(trained_for=model.config.trained_for)
        (subject,) = torchvision_subjects([network], images.num_classes, images.image_size)
    with user_errors(ValueError, TypeError):
        images.check_classes("the GHN", model.config.num_classes)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            random = subject.build()
    predicted, trained = copy.deepcopy(random), copy.deepcopy(random)
    with status(f"Predicting {network}"), user_errors(ValueError):
        start = time.perf_counter()
        model(predicted)
        predicted_seconds = time.perf_counter() - start
    with status(f"Training {network}"), user_errors(FloatingPointError, ImportError):
        start = time.perf_counter()
        fit(trained, images, FitConfig(epochs=1, seed=seed), fabric=make_fabric(device="cpu"))
        trained_seconds = time.perf_counter() - start
    networks = {"random": random, "predicted": predicted, "1 epoch of SGD": trained}
    accuracies, choices, batches = {}, {}, Batches(images.test)
    shown, _ = images.test.batch(_SHOWN)
    with status("Measuring"), torch.inference_mode():
        for name, each in networks.items():
            with evaluation_mode(each, "recalibrated", images, 0, None):
                accuracies[name] = measure(each, batches).top1
                choices[name] = each(shown).argmax(1)
    table = make_table("parameters", "top-1", "seconds")
    seconds = ("", f"{predicted_seconds:.2f}", f"{trained_seconds:.2f}")
    for (name, accuracy), taken in zip(accuracies.items(), seconds, strict=True):
        table.add_row(name, f"{accuracy:.1%}", taken)
    size = counted(sum(p.numel() for p in random.parameters()), "parameter")
    rows = [("network", f"{size}, for images of {images.image_size} pixels")]
    if out is not None:
        with status("Drawing"), user_errors(ImportError, OSError):
            from ..viz.evaluation_plots import plot_choices

            plot_choices(accuracies, choices, images, _SHOWN, out)
        rows.append(("saved", str(out)))
    print_rows(f"{network} on {len(images.test):,} test images of {images.name}, by {ghn}", rows, table)
