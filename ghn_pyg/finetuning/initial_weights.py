"""Initial weights of a network: a GHN's prediction, with noise."""

from __future__ import annotations

from torch import nn

from ..graph.arch_data import ArchData
from ..models.apply import load_prediction
from ..models.ghn import GHN
from ..models.prediction import Prediction
from .noise import add_noise, orthogonalize


def start_from(
    ghn: GHN, network: nn.Module, graph: ArchData, *, noise: float = 1e-5, orthogonal: int | None = None,
    keep_classifier: bool = False, seed: int = 0,
) -> Prediction:  # fmt: skip
    """Loads predicted parameters into a network to train it (GHN-3, arXiv 2303.04143).

    Args:
        ghn: The GHN.
        network: The network; it is changed in place.
        graph: Its graph.
        noise: Noise on all weights but those of the last layer; see :func:`~ghn_pyg.finetuning.add_noise`.
        orthogonal: Number of the first weight to make orthogonal, except for the last layer; see
            :func:`~ghn_pyg.finetuning.orthogonalize`. By default none is.
        keep_classifier: Whether the last layer keeps its values, for example for another number of classes.
        seed: Seed of the noise and of class tokens.

    Returns:
        The parameters that were loaded.

    Raises:
        ValueError: If the graph is of another network, or an option is out of range; the network is unchanged then.

    Example:
        >>> from ghn_pyg import GHN, GHNConfig, from_module
        >>> ghn = GHN(GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2, num_classes=7))
        >>> network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 7))
        >>> sorted(start_from(ghn, network, from_module(network)))
        ['0.bias', '0.weight', '3.bias', '3.weight']
    """
    prediction = ghn.predict(graph, keep_classifier=keep_classifier, seed=seed)
    nodes = zip(graph.params, graph.classifier.tolist(), strict=True)
    last = {spec.name for specs, in_classifier in nodes for spec in specs if in_classifier}
    changed = add_noise(prediction, noise, skip=last, seed=seed)
    if orthogonal is not None:
        changed = orthogonalize(changed, orthogonal, skip=last)
    prediction.update(changed)
    load_prediction(network, prediction)
    return prediction
