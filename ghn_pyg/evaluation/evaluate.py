"""Accuracy of predicted, initial or trained parameters over many networks."""

from __future__ import annotations

import importlib
import logging
import math
import time
import zlib
from collections.abc import Callable, Iterable
from typing import Any, Final, get_args

import torch
from torch import nn

from ..data import Images
from ..finetuning import start_from
from ..finetuning.config import FitConfig
from ..finetuning.train_network import check_fit, fit
from ..graph.arch_data import ArchData
from ..models.apply import load_prediction
from ..models.ghn import GHN
from ..models.prediction import Prediction
from ..training.fabric import make_fabric
from ..training.seeds import seed_of
from .accuracy import BATCH_SIZE, Batches, Statistics, measure, norms
from .report import Report, Row
from .subjects import Subject

NOISE: Final = {"cifar10": 0.08, "cifar100": 0.08, "imagenet": 0.18}
"""Published standard deviations of noise on images."""

_logger = logging.getLogger(__name__)


def evaluate(
    ghn: GHN | None, subjects: Iterable[Subject], images: Images, *, statistics: Statistics = "batch",
    batch_size: int = BATCH_SIZE, noise: float = 0.0, seed: int = 0, device: Any = None, workers: int = 0,
    other_classes: bool = False, training: FitConfig | None = None, progress: Callable[[Row], None] = lambda row: None,
) -> Report:  # fmt: skip
    """Predicts the parameters of each network and measures its accuracy on the test images.

    A network that fails, for whatever reason, is listed with it, and the coverage tells how many did not.

    Args:
        ghn: The GHN; ``None`` to leave the networks as their constructors initialise them, for comparison.
        subjects: The networks.
        images: The image data.
        statistics: Of batch norms, ``"batch"``, ``"recalibrated"`` or ``"running"``; see
            :func:`~ghn_pyg.evaluation.accuracy.norms`. The last is for trained networks.
        batch_size: Images in a batch.
        noise: Standard deviation of Gaussian noise on pixels from 0 to 1; see :data:`NOISE` for published ones.
        seed: Seed of the order of images, of noise, of class tokens and of initial parameters.
        device: Where networks run; by default where the GHN is.
        workers: Processes that read images.
        other_classes: Whether the GHN may have been trained for another number of classes. Its accuracy is then
            that of chance.
        training: How each network is trained before it is measured; by default not at all. Predicted parameters are
            made ready for it; see :func:`~ghn_pyg.finetuning.start_from`.
        progress: Called with each row.

    Raises:
        ValueError: If the numbers of classes differ, or an option is out of range; nothing has run then.
        ImportError: If torchmetrics is missing.

    Example:
        >>> from ghn_pyg import GHNConfig
        >>> from ghn_pyg.families.deepnets.dataset import DeepNets
        >>> from ghn_pyg.evaluation.subjects import deepnets_subjects
        >>> from ghn_pyg.data import load_images
        >>> ghn = GHN(GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2, num_classes=10))
        >>> subjects = deepnets_subjects(DeepNets("test", image_size=8, width=8)[:2])
        >>> report = evaluate(ghn, subjects, load_images("digits", image_size=8))
        >>> len(report.rows), report.coverage
        (2, 1.0)
    """
    subjects = list(subjects)
    if ghn is not None and not other_classes:
        remedy = "train one for it, or say so by other_classes (--other-classes)"
        images.check_classes("the GHN", ghn.config.num_classes, remedy)
    for subject in subjects:
        images.check_classes(subject.name, subject.num_classes)
    if statistics not in get_args(Statistics):
        raise ValueError(f"statistics expected one of {', '.join(get_args(Statistics))}, got {statistics!r}")
    if statistics == "running" and ghn is not None and training is None:
        raise ValueError("statistics expected batch or recalibrated, as networks that were not trained have no running")
    if not math.isfinite(noise) or noise < 0 or batch_size < 2:
        raise ValueError(f"expected noise of at least 0 and batch_size of at least 2, got {noise} and {batch_size}")
    check_torchmetrics()
    device = device or (ghn.device if ghn is not None else torch.device("cpu"))
    batches = Batches(images.test, seed, batch_size, [noise / std for std in images.std])
    fabric = None
    if training is not None:
        check_fit(images, training)
        fabric = make_fabric(device=str(device))

    def accuracy(network: nn.Module) -> dict[str, Any]:
        if training is not None and fabric is not None:
            fit(network, images, training, fabric=fabric, workers=workers)
        with norms(network, statistics, images, seed, device, workers):
            return measure(network, batches, device, workers)._asdict()

    rows = []
    for subject in subjects:
        with torch.random.fork_rng(devices=[]):
            # The same for a network wherever it stands in a list.
            torch.default_generator.manual_seed(seed_of(seed, zlib.crc32(subject.name.encode())))
            rows.append(_row(ghn, subject, training, accuracy, seed, device))
        progress(rows[-1])
    settings = {
        "parameters": "initial" if ghn is None else "predicted", "ghn": ghn and ghn.config.to_dict(),
        "training": training and training.to_dict(),
        "images": images.name, "image_size": images.image_size, "test_images": len(images.test),
        "statistics": statistics, "batch_size": batch_size, "noise": noise, "seed": seed,
    }  # fmt: skip
    return Report(rows, settings)


def published_noise(images: Images) -> float:
    """The standard deviation of noise that published evaluations put on such images.

    Raises:
        ValueError: If none is published for them.

    Example:
        >>> from ghn_pyg.data import load_images
        >>> published_noise(load_images("digits"))
        Traceback (most recent call last):
            ...
        ValueError: no noise is published for digits, only for cifar10, cifar100, imagenet; give a number
    """
    noise = NOISE.get(images.name.lower())
    if noise is None:
        raise ValueError(f"no noise is published for {images.name}, only for {', '.join(NOISE)}; give a number")
    return noise


def check_torchmetrics() -> None:
    """Raises an error that says what to do where torchmetrics is missing."""
    try:
        importlib.import_module("torchmetrics")
    except ImportError as error:
        raise ImportError('evaluation needs torchmetrics; install it with: pip install "ghn_pyg[train]"') from error


def _row(
    ghn: GHN | None, subject: Subject, training: FitConfig | None, accuracy: Callable[[nn.Module], dict[str, Any]],
    seed: int, device: Any,
) -> Row:  # fmt: skip
    """The outcome for one network."""
    start = time.perf_counter()
    found: dict[str, Any] = {"name": subject.name}
    try:
        network = subject.build()
        graph = subject.graph(network)
        found |= {"nodes": graph.num_nodes, "parameters": sum(p.numel() for p in network.parameters())}
        if ghn is not None:
            predict = _predicted if training is None else start_from
            found["total_norm"] = predict(ghn, network, graph, seed=seed).total_norm()
        found |= accuracy(network.to(device))
    except Exception as error:  # whatever it is, it stands in the report
        _logger.debug("%s failed", subject.name, exc_info=True)
        found["failure"] = f"{type(error).__name__}: {error}"
    return Row(**found, seconds=time.perf_counter() - start)


def _predicted(ghn: GHN, network: nn.Module, graph: ArchData, *, seed: int) -> Prediction:
    """Gives a network its predicted parameters, as they are."""
    prediction = ghn.predict(graph, seed=seed)
    load_prediction(network, prediction)
    return prediction
