"""Predicts networks that are too large for memory: shard by shard, to disk."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from ..graph.arch_data import ArchData
from ..tracing.trace import from_module
from ..utils.atomic_files import unfinished_folder
from .checkpoints.shard_reader import ShardIndex
from .checkpoints.shard_writer import ShardWriter, check_disk, existing_shards, replace_shards
from .ghn import CLASSIFIER_KEPT, GHN
from .parameter_decoder import node_parameters

SHARD_SIZE: Final = 2 * 10**9


def predict_shards(
    ghn: GHN, network: nn.Module | ArchData, folder: str | os.PathLike[str], *, shard_size: int = SHARD_SIZE,
    dtype: torch.dtype | None = None, seed: int | None = None, keep_classifier: bool = False,
    metadata: Mapping[str, Any] | None = None,
) -> ShardIndex:  # fmt: skip
    """Predicts the parameters of a network of any size into safetensors shards, holding one shard at a time.

    The numbers are those of :meth:`GHN.predict`. The format is that of Hugging Face's libraries: with the network's
    ``config.json`` in the same folder, Transformers' ``from_pretrained(folder)`` loads it; :func:`load_prediction`
    loads it into any network. Shared parameters are written once. Memory is that of the GHN, one shard, and the
    blocks that are decoded at a time (about 256 MiB).

    The prediction replaces an earlier one when it is complete, in one step: a process that is killed at any moment
    leaves the earlier prediction or the new one. Other files stay. What a killed process leaves is removed by the next
    prediction. A folder without an index holds no prediction.

    Args:
        ghn: The GHN.
        network: The network, on any device including ``meta``, or its graph.
        folder: Folder to write into, created if missing.
        shard_size: Largest size of a shard in bytes; a larger tensor gets its own shard.
        dtype: Type of the predicted tensors; the GHN's own by default.
        seed: Seed of the rows of class tokens; they come from PyTorch's global generator by default.
        keep_classifier: Leave the classification layer out.
        metadata: Further facts for the index, such as ``{"ghn": "ghn3xlm16"}``.

    Returns:
        The index: the file of each tensor, and ``metadata`` with ``total_size``, ``ghn_pyg`` (the version), ``config``
        (of the GHN), ``kept`` (parameters that are not predicted, with the reason), ``tied`` (further names of shared
        parameters) and what ``metadata`` adds.

    Raises:
        ValueError: If ``shard_size`` is not positive, or a batch is given.
        TypeError: If ``metadata`` cannot be written as JSON.
        FileExistsError: If the folder holds weights that are not an earlier prediction.
        OSError: If it cannot be written, as on a full disk, or another process predicts into the folder; an earlier
            prediction stays as it was.

    Example:
        >>> import tempfile
        >>> from ghn_pyg import GHNConfig, load_prediction
        >>> ghn = GHN(GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2))
        >>> network = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 7))
        >>> graph = from_module(network, torch.zeros(1, 3))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     index = predict_shards(ghn, graph, folder, shard_size=100, dtype=torch.bfloat16)
        ...     network = load_prediction(network, folder)
        >>> sorted(set(index.weight_map.values()))
        ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors']
    """
    if shard_size < 1:
        raise ValueError(f"shard_size expected a number of bytes of at least 1, got {shard_size}")
    graph = network if isinstance(network, ArchData) else from_module(network)
    if graph.get("ptr") is not None:
        raise ValueError("predict_shards expected one network or its graph, got a batch; call it for each of them")
    ghn.check_classes(graph, keep_classifier)
    weight = ghn.node_embedding.weight
    dtype = dtype or weight.dtype
    shapes: dict[str, tuple[int, ...]] = {}
    kept = dict(graph.kept)
    for parameter in node_parameters(graph):
        if keep_classifier and parameter.classifier:
            kept[parameter.spec.name] = CLASSIFIER_KEPT
        else:
            shapes[parameter.spec.name] = parameter.spec.shape
    facts = {**(metadata or {}), "config": ghn.config.to_dict(), "kept": kept, "tied": graph.tied}
    json.dumps(facts)  # raises before the work if metadata is not JSON
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with unfinished_folder(folder, "shards") as unfinished:
        existing_shards(folder)  # raises before the work if there are other weights
        check_disk(folder, sum(map(math.prod, shapes.values())) * dtype.itemsize)
        writer = ShardWriter(unfinished, shard_size)
        for name, shape in shapes.items():
            if 0 in shape:  # nothing to decode
                writer.empty(name, shape, dtype)
        with torch.no_grad():
            ghn.decode(
                graph, keep_classifier, lambda p: writer.empty(p.spec.name, p.spec.shape, dtype, weight.device), seed
            )
        return replace_shards(*writer.finish(facts), folder)
