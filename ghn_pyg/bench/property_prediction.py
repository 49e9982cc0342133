"""Prediction of properties of trained networks, such as their accuracy, from embeddings of their graphs."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import timeit
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Final

import numpy as np
import torch
from filelock import FileLock
from pydantic import Field, PositiveInt
from torch import nn

from ..data.images import Images
from ..evaluation.accuracy import Batches, evaluation_mode, measure
from ..evaluation.report import kendall_tau
from ..families.deepnets.dataset import DeepNets
from ..families.deepnets.network import Network
from ..finetuning import FitConfig, fit
from ..graph.arch_data import ArchData
from ..models import GHN, GHNConfig
from ..training import load_config
from ..training.fabric import make_fabric
from ..training.image_batches import ImageBatches, run_images
from ..utils.atomic_files import write_csv, write_text
from ..utils.optional import require
from .base_task import Task
from .parameter_prediction import MetaTrainedTask

PROPERTIES: Final = ("accuracy", "accuracy on noise", "inference time", "convergence time")
GRID: Final = {
    "C": [1, 10, 50, 100, 200, 500, 1000],
    "gamma": ["auto", 0.05, 0.1, 0.2, 0.5],
    "epsilon": [0.05, 0.1, 0.2],
}
"""Grid of hyper-parameters of support vector regression (arXiv 2110.13100)."""
SPLITS: Final = ("val", "test")
"""Networks that the regression is trained on, and networks that are ranked."""

_FOLDS: Final = 5
_TIMED_BATCHES: Final = 5


class PropertyTask(MetaTrainedTask):
    r"""Kendall's τ between properties of trained networks and their prediction from embeddings.

    Networks of the split ``val`` are the training data, networks of ``test`` are ranked. Support vector regression
    predicts a property from the mean node embedding of a network; its hyper-parameters are chosen by five-fold
    cross-validation (arXiv 2110.13100). Properties:

    - *accuracy*: top-1 accuracy after training by SGD;
    - *accuracy on noise*: the same with Gaussian noise on the test images;
    - *inference time*: seconds for a batch of test images;
    - *convergence time*: training steps until convergence; see :func:`convergence_time`.

    Args:
        networks: Number of networks of each split.
        epochs: Epochs that each network is trained for.
        noise: Standard deviation of the noise, for pixels from 0 to 1.
        recipe, changes, width: See :class:`~ghn_pyg.bench.parameter_prediction.MetaTrainedTask`.
    """

    kind: ClassVar[str] = "properties"
    networks: Annotated[int, Field(ge=2 * _FOLDS)] = 100
    epochs: PositiveInt = 5
    noise: float = Field(0.2, ge=0)

    def run(self, ghn: GHNConfig, seed: int, folder: Path) -> dict[str, float]:
        """Kendall's τ on the test networks for each property."""
        model = self.trained_ghn(ghn, seed, folder)
        images = run_images(self.config(ghn, seed), augment=False)
        train, test = (self.trained_networks(split, images, folder) for split in SPLITS)
        train_x, test_x = (embeddings(model, [graph for graph, _ in data]) for data in (train, test))
        results = {}
        for name in PROPERTIES:
            train_y, test_y = ([values[name] for _, values in data] for data in (train, test))
            results[f"{name} τ"] = ranking_tau(train_x, train_y, test_x, test_y)
        return results

    def trained_networks(self, split: str, images: Images, folder: Path) -> list[tuple[ArchData, dict[str, float]]]:
        """Graphs and properties of the first networks of a split, trained unless the folder has them already."""
        networks = DeepNets(split, num_classes=images.num_classes, image_size=images.image_size, width=self.width)
        graphs = list(networks[: self.networks])
        results: dict[int, dict[str, float]] = {}
        # In random order, so that processes that share the folder rarely wait for the same network.
        for position in np.random.default_rng().permutation(len(graphs)).tolist():
            results[position] = self.trained_network(graphs[position], images, folder / "networks")
        return [(graph, results[position]) for position, graph in enumerate(graphs)]

    def trained_network(self, graph: ArchData, images: Images, folder: Path) -> dict[str, float]:
        """The properties of one network, from its file in the folder if it was trained before."""
        training = FitConfig(epochs=self.epochs)
        architecture = json.dumps(graph.architecture.to_dict(), sort_keys=True)
        settings = {"architecture": architecture, "images": images.name, "size": images.image_size,
                    "training": dict(vars(training)), "noise": self.noise}  # fmt: skip
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        path = folder / f"{digest}.json"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):  # all processes use the same inference times
            if not path.exists():
                with torch.random.fork_rng(devices=[]):
                    torch.default_generator.manual_seed(0)
                    network = Network(graph.architecture, images.num_classes, images.image_size)
                    values = properties(network, images, training, self.noise)
                write_text(path, json.dumps({**settings, "properties": values}) + "\n")
            saved: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))["properties"]
        return saved


def properties(network: nn.Module, images: Images, training: FitConfig, noise: float) -> dict[str, float]:
    """Trains a network and measures its :data:`PROPERTIES`.

    A network whose training diverges has the accuracy of chance and needs all steps to converge.
    """
    losses: list[float] = []

    def add_loss(step: int, loss: torch.Tensor) -> None:
        losses.append(loss.item())

    clean = Batches(images.test)
    noisy = Batches(images.test, noise=[noise / std for std in images.std])
    try:
        fit(network, images, training, fabric=make_fabric(device="cpu"), on_step=add_loss)
        with evaluation_mode(network, "batch", images, 0, torch.device("cpu")):
            accuracies = [measure(network, batches).top1 for batches in (clean, noisy)]
            seconds = _inference_time(network, clean[0][0])
        steps = convergence_time(losses, images.num_classes)
    except FloatingPointError:
        accuracies = [1 / images.num_classes] * 2
        seconds = _inference_time(network.eval(), clean[0][0])
        steps = training.epochs * ImageBatches(images.train, training.batch_size).steps_per_epoch
    return dict(zip(PROPERTIES, (*accuracies, seconds, float(steps)), strict=True))


def convergence_time(losses: Sequence[float], num_classes: int) -> int:
    """Training steps until the loss has done 90 % of its decrease, from the loss of chance to the final one.

    Losses are smoothed by a moving average over 5 % of the steps. A network that ends no better than chance needs all
    steps.

    Example:
        >>> convergence_time([2.3, 1.0, 0.2, 0.1, 0.1, 0.1], num_classes=10)
        3
    """
    window = max(1, round(0.05 * len(losses)))
    means = np.convolve(losses, np.full(window, 1 / window), mode="valid")
    chance = np.log(num_classes)
    if means[-1] >= chance:
        return len(losses)
    return window + int(np.argmax(means <= chance - 0.9 * (chance - means[-1])))


@torch.inference_mode()
def _inference_time(network: nn.Module, images: torch.Tensor) -> float:
    return statistics.median(timeit.repeat(lambda: network(images), number=1, repeat=1 + _TIMED_BATCHES)[1:])


def embeddings(ghn: GHN, graphs: Sequence[ArchData], batch_size: int = 16) -> np.ndarray:
    """Mean node embeddings of networks, of shape (G, d)."""
    with torch.inference_mode():
        batches = [graphs[start : start + batch_size] for start in range(0, len(graphs), batch_size)]
        return torch.cat([ghn.embed_graphs(list(batch)) for batch in batches]).cpu().numpy()


def ranking_tau(train_x: np.ndarray, train_y: Sequence[float], test_x: np.ndarray, test_y: Sequence[float]) -> float:
    """Kendall's τ between a property and its prediction by support vector regression; 0 for a constant prediction."""
    std = float(np.std(train_y)) or 1.0  # the grid is for targets of standard deviation 1
    selection, pipeline, preprocessing, svm = (
        require(f"sklearn.{name}", "train", "property predictions")
        for name in ("model_selection", "pipeline", "preprocessing", "svm")
    )
    steps = pipeline.make_pipeline(preprocessing.StandardScaler(), svm.SVR())
    grid = {f"svr__{name}": values for name, values in GRID.items()}
    model = selection.GridSearchCV(steps, grid, cv=_FOLDS)
    model.fit(train_x, (np.asarray(train_y) - np.mean(train_y)) / std)
    tau = kendall_tau(model.predict(test_x), test_y)
    return 0.0 if np.isnan(tau) else tau


def make_networks(tasks: Mapping[str, Task], folder: str | os.PathLike[str]) -> list[Path]:
    """Trains the networks of all property prediction tasks, and saves them where the benchmark looks for them.

    Networks that are there already are not trained again. Returns a table of the properties for each of the tasks,
    ``TASK/networks.csv``; raises a ValueError if there is no such task.
    """
    files = []
    for name, task in tasks.items():
        if isinstance(task, PropertyTask):
            images = run_images(load_config(task.recipe, task.changes), augment=False)
            files.append(Path(folder, name, "networks.csv"))
            rows = [
                (split, position, *(values[name] for name in PROPERTIES))
                for split in SPLITS
                for position, (_, values) in enumerate(task.trained_networks(split, images, files[-1].parent))
            ]
            write_csv(files[-1], [("split", "position", *PROPERTIES), *rows])
    if not files:
        raise ValueError(f"expected a task of the kind {PropertyTask.kind}, got {', '.join(tasks)}")
    return files
