"""Accuracy of many networks with predicted, initial or trained parameters."""

from __future__ import annotations

import logging
import math
import time
import zlib
from collections.abc import Callable, Iterable
from typing import Any, get_args

import torch
from torch import nn

from ..data.images import Images, ImagesError
from ..finetuning import FitConfig, fit, start_from
from ..finetuning.train_network import check_fit
from ..models import GHN, load_prediction
from ..training.fabric import make_fabric
from ..training.seeds import seed_of
from .accuracy import BATCH_SIZE, Accuracy, Batches, Statistics, evaluation_mode, measure
from .report import Report, Row
from .subjects import Subject

_logger = logging.getLogger(__name__)


def evaluate(
    ghn: GHN | None, networks: Iterable[Subject], images: Images, *, statistics: Statistics = "recalibrated",
    batch_size: int = BATCH_SIZE, noise: float = 0.0, seed: int = 0, device: Any = None, workers: int = 0,
    other_classes: bool = False, training: FitConfig | None = None, progress: Callable[[Row], None] = lambda row: None,
) -> Report:  # fmt: skip
    """Predicts the parameters of each network and measures its accuracy on the test images.

    A network that raises an error does not stop the others: the report lists it with the error and counts it in its
    coverage.

    Args:
        ghn: The GHN; ``None`` to keep the initial parameters of each network, for comparison.
        networks: The networks; see :func:`~ghn_pyg.evaluation.subjects.deepnets_subjects`.
        images: The image data.
        statistics: Batch-norm statistics: ``"recalibrated"``, ``"batch"``, which peeks at the batch, or, for trained
            networks, ``"running"``; see :func:`~ghn_pyg.evaluation.accuracy.evaluation_mode`.
        batch_size: Test images in a batch; it matters for the statistics of each batch alone.
        noise: Standard deviation of Gaussian noise on the test images, for pixels from 0 to 1; see
            :func:`~ghn_pyg.evaluation.accuracy.published_noise`.
        seed: Seed of the order of images, of noise, of class tokens and of initial parameters.
        device: Where networks run; by default the device of the GHN.
        workers: Processes that read images.
        other_classes: Accept a GHN for another number of classes, whose accuracy is that of chance.
        training: How each network is trained before it is measured; by default it is not. Training starts from
            predicted parameters as :func:`~ghn_pyg.finetuning.init.start_from` sets them.
        progress: Called with each row.

    Raises:
        ValueError: If numbers of classes differ, or an option is out of range. It is raised before any network runs.
        ImagesError: If an image cannot be read.

    Example:
        >>> from ghn_pyg.data import load_images
        >>> from ghn_pyg.evaluation import torchvision_subjects
        >>> report = evaluate(None, torchvision_subjects(["resnet18"], 10, 8), load_images("digits", image_size=8))
        >>> report.coverage
        1.0
    """
    networks = list(networks)
    if ghn is not None and not other_classes:
        remedy = "train one for it, or say so by other_classes (--other-classes)"
        images.check_classes("the GHN", ghn.config.num_classes, remedy)
        images.check_trained_for(ghn.config.trained_for)
    for subject in networks:
        images.check_classes(subject.name, subject.num_classes)
    if statistics not in get_args(Statistics):
        raise ValueError(f"statistics expected one of {', '.join(get_args(Statistics))}, got {statistics!r}")
    if statistics == "running" and ghn is not None and training is None:
        raise ValueError("statistics expected recalibrated or batch; only trained networks have running statistics")
    least = 2 if statistics == "batch" else 1
    if not math.isfinite(noise) or noise < 0 or batch_size < least:
        raise ValueError(
            f"expected noise of at least 0 and batch_size of at least {least}, got {noise} and {batch_size}"
        )
    device = device or (ghn.device if ghn is not None else torch.device("cpu"))
    batches = Batches(images.test, seed, batch_size, [noise / std for std in images.std])
    fabric = None
    if training is not None:
        check_fit(images, training)
        fabric = make_fabric(device=str(device))

    def accuracy(network: nn.Module) -> Accuracy:
        if training is not None and fabric is not None:
            fit(network, images, training, fabric=fabric, workers=workers)
        with evaluation_mode(network, statistics, images, seed, device, workers):
            return measure(network, batches, device, workers)

    rows = []
    for subject in networks:
        with torch.random.fork_rng(devices=[]):
            # Initial parameters depend on the name of a network, not on its position in the list.
            torch.default_generator.manual_seed(seed_of(seed, zlib.crc32(subject.name.encode())))
            rows.append(_row(ghn, subject, seed, device, training is not None, accuracy))
        progress(rows[-1])
    settings = {
        "parameters": "initial" if ghn is None else "predicted", "ghn": ghn and ghn.config.to_dict(),
        "training": training and dict(vars(training)),
        "images": images.name, "image_size": images.image_size, "test_images": len(images.test),
        "statistics": statistics, "batch_size": batch_size, "noise": noise, "seed": seed,
    }  # fmt: skip
    return Report(rows, settings)


def _row(
    ghn: GHN | None, subject: Subject, seed: int, device: Any, is_trained: bool,
    accuracy: Callable[[nn.Module], Accuracy],
) -> Row:  # fmt: skip
    """Builds, predicts and measures one network."""
    start = time.perf_counter()
    values: dict[str, Any] = {"name": subject.name}
    try:
        network = subject.build()
        graph = subject.graph(network)
        values |= {"nodes": graph.num_nodes, "parameters": sum(p.numel() for p in network.parameters())}
        if ghn is not None and is_trained:
            values["total_norm"] = start_from(ghn, network, graph, seed=seed).total_norm()
        elif ghn is not None:
            prediction = ghn.predict(graph, seed=seed)
            load_prediction(network, prediction)
            values["total_norm"] = prediction.total_norm()
        values |= accuracy(network.to(device))._asdict()
    except ImagesError:  # an image that cannot be read is no fault of the network
        raise
    except Exception as error:  # any error of a network is reported in its row
        _logger.debug("%s failed", subject.name, exc_info=True)
        values["failure"] = f"{type(error).__name__}: {error}"
    return Row(**values, seconds=time.perf_counter() - start)
