"""How well embeddings of networks tell their properties: accuracy after training and the like."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import torch
from filelock import FileLock
from torch import nn

from ..data import Images
from ..evaluation.accuracy import Batches, measure, norms
from ..evaluation.ranking import check_scipy
from ..families.deepnets.dataset import DeepNets
from ..families.deepnets.network import Network
from ..finetuning.config import FitConfig
from ..finetuning.train_network import Epoch, fit
from ..graph.arch_data import ArchData
from ..models.config import GHNConfig
from ..training.fabric import make_fabric
from ..training.image_batches import ImageBatches, run_images
from ..utils.atomic_files import replacing
from .parameter_prediction import RUNS, MetaTrainedTask
from .sharing import divide

PROPERTIES: Final = ("accuracy", "accuracy on noise", "inference time", "convergence time")
GRID: Final = {
    "C": [1, 10, 50, 100, 200, 500, 1000],
    "gamma": ["auto", 0.05, 0.1, 0.2, 0.5],
    "epsilon": [0.05, 0.1, 0.2],
}
"""What support vector regression chooses from (arXiv 2110.13100)."""

LEARNED: Final = 0.9
"""The share of what the training loss falls by, after which a network counts as converged."""

_FOLDS: Final = 5
_TIMED: Final = 5
_WINDOW: Final = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class PropertyTask(MetaTrainedTask):
    r"""Predicts properties of trained networks from their embeddings, and ranks networks by them (Kendall's τ).

    Networks of the split ``val`` are trained to learn from, those of ``test`` to be ranked. Support vector regression
    goes from the mean of a GHN's node embeddings to the property, with hyper-parameters chosen by five-fold
    cross-validation (arXiv 2110.13100). The GHN is that of the task ``parameters`` with the same recipe. Properties:

    - *accuracy*: top-1 after training by SGD;
    - *accuracy on noise*: the same with Gaussian noise on the test images;
    - *inference time*: seconds for a batch of test images;
    - *convergence time*: the steps until nine tenths of the fall of the training loss are done; see
      :func:`convergence_time`.

    Args:
        networks: Networks of each of both splits.
        epochs: How long each is trained.
        noise: Standard deviation of the noise, on pixels from 0 to 1.
    """

    kind: ClassVar[str] = "properties"
    networks: int = 100
    epochs: int = 5
    noise: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.networks < 2 * _FOLDS:
            raise ValueError(f"PropertyTask.networks expected at least {2 * _FOLDS}, got {self.networks}")

    def run(self, ghn: GHNConfig, seed: int, folder: Path) -> dict[str, float]:
        """Kendall's τ on the test networks for each property."""
        model = self.trained(ghn, seed, folder.parent / RUNS)
        config = self.config(ghn, seed)
        images = run_images(config, augment=False)
        parts = [self.data(name, images, folder / "networks") for name in ("val", "test")]
        (learn, known), (rank, truth) = (
            (embeddings(model, [graph for graph, _ in part]), [values for _, values in part]) for part in parts
        )
        return {
            f"{name} τ": correlation(learn, [row[name] for row in known], rank, [row[name] for row in truth])
            for name in PROPERTIES
        }

    def data(
        self, name: str, images: Images, folder: Path, progress: Callable[[int], None] = lambda place: None
    ) -> list[tuple[ArchData, dict[str, float]]]:
        """Graphs of a split's first networks with their properties, trained unless they were before."""
        split = DeepNets(name, num_classes=images.num_classes, image_size=images.image_size, width=self.width)
        graphs = list(split[: self.networks])

        def work(place: int, patience: float) -> dict[str, float]:
            found = self.trained_network(graphs[place], images, folder, patience)
            progress(place)
            return found

        return list(zip(graphs, divide(range(len(graphs)), work), strict=True))

    def trained_network(self, graph: ArchData, images: Images, folder: Path, patience: float = -1) -> dict[str, float]:
        """The properties of one network, which a file keeps."""
        training = FitConfig(epochs=self.epochs)
        architecture = json.dumps(dataclasses.asdict(graph.architecture), sort_keys=True, default=str)
        wanted = {"architecture": architecture, "images": images.name, "size": images.image_size,
                  "training": training.to_dict(), "noise": self.noise}  # fmt: skip
        path = folder / f"{_digest(wanted)}.json"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock"), timeout=patience):  # all processes rank networks by the same times
            if path.exists():
                found: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))["properties"]
                return found
            found = self._properties(graph, images, training)
            with replacing(path) as unfinished:
                unfinished.write_text(json.dumps({**wanted, "properties": found}) + "\n", encoding="utf-8")
        return found

    def _properties(self, graph: ArchData, images: Images, training: FitConfig) -> dict[str, float]:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            network = Network(graph.architecture, images.num_classes, images.image_size)
            return properties(network, images, training, self.noise)


def properties(network: nn.Module, images: Images, training: FitConfig, noise: float) -> dict[str, float]:
    """Trains a network and measures it.

    Args:
        network: The network; it is changed.
        images: The image data.
        training: How to train it.
        noise: Standard deviation of Gaussian noise on pixels from 0 to 1.

    Returns:
        A number for each of :data:`PROPERTIES`. A network whose losses are not finite has the accuracy of chance, and
        never converges.
    """
    losses: list[float] = []

    def note(epoch: Epoch) -> None:
        losses.extend(epoch.losses)

    batches = [Batches(images.test, noise=[level / std for std in images.std]) for level in (0.0, noise)]
    try:
        fit(network, images, training, fabric=make_fabric(device="cpu"), progress=note)
        with norms(network, "batch", images, 0, torch.device("cpu")):
            clean, noisy = (measure(network, one).top1 for one in batches)
            seconds = _inference(network, batches[0][0][0])
        steps = convergence_time(losses, images.num_classes)
    except FloatingPointError:
        clean = noisy = 1 / images.num_classes
        seconds = _inference(network.eval(), batches[0][0][0])
        steps = training.epochs * ImageBatches(images.train, training.batch_size).steps_per_epoch
    return dict(zip(PROPERTIES, (clean, noisy, seconds, float(steps)), strict=True))


def convergence_time(losses: Sequence[float], num_classes: int) -> int:
    """The steps until a network has learned nine tenths of what it learns: a property that is known only by training.

    The training loss falls from that of chance to what it ends with, both as means over a twentieth of the steps; it
    counts when such a mean has first done nine tenths of the way. A network that ends no better than chance takes all
    steps.

    Args:
        losses: The training loss of each step.
        num_classes: Number of classes.

    Example:
        >>> convergence_time([2.3, 1.0, 0.2, 0.1, 0.1, 0.1], num_classes=10)
        3
    """
    window = max(1, round(_WINDOW * len(losses)))
    means = np.convolve(losses, np.full(window, 1 / window), mode="valid")
    chance = np.log(num_classes)
    if means[-1] >= chance:
        return len(losses)
    return window + int(np.argmax(means <= chance - LEARNED * (chance - means[-1])))


@torch.inference_mode()
def _inference(network: nn.Module, pixels: torch.Tensor) -> float:
    seconds = []
    for _ in range(1 + _TIMED):
        start = time.perf_counter()
        network(pixels)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def embeddings(ghn: Any, graphs: Sequence[ArchData], portion: int = 16) -> np.ndarray:
    """Embeddings of networks, of shape (G, d)."""
    with torch.inference_mode():
        parts = [ghn.embed_graphs(list(graphs[at : at + portion])) for at in range(0, len(graphs), portion)]
    return torch.cat(parts).cpu().numpy()


def correlation(learn: np.ndarray, known: Sequence[float], rank: np.ndarray, truth: Sequence[float]) -> float:
    """Kendall's τ between properties and what is predicted for them, from -1 to 1.

    Args:
        learn: Embeddings of networks whose property is known, (G, d).
        known: The property.
        rank: Embeddings of other networks.
        truth: Their property.

    Raises:
        ImportError: If scikit-learn is missing.
    """
    spread = float(np.std(known)) or 1.0  # the grid fits values of deviation 1
    model = regression().fit(learn, (np.asarray(known) - np.mean(known)) / spread)
    tau = float(check_scipy().kendalltau(model.predict(rank), truth).statistic)
    return 0.0 if np.isnan(tau) else tau  # a constant ranks nothing


def regression() -> Any:
    """Support vector regression on standardised embeddings, with hyper-parameters by cross-validation."""
    try:
        selection, pipeline, preprocessing, svm = (
            importlib.import_module(f"sklearn.{name}")
            for name in ("model_selection", "pipeline", "preprocessing", "svm")
        )
    except ImportError as error:
        raise ImportError('properties need scikit-learn; install it with: pip install "ghn_pyg[train]"') from error
    steps = pipeline.make_pipeline(preprocessing.StandardScaler(), svm.SVR())
    return selection.GridSearchCV(steps, {f"svr__{name}": values for name, values in GRID.items()}, cv=_FOLDS)


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
