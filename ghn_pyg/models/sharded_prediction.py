"""Predictions that are too large to be held: to shards on disk, one after another."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from ..graph.arch_data import ArchData
from ..tracing.trace import from_module
from .checkpoints.sharded_files import ShardIndex, ShardWriter, check_disk, earlier_files, exchange, shard_folder
from .decoding import Target, targets
from .ghn import CLASSIFIER_KEPT, GHN

SHARD_SIZE: Final = 2 * 10**9


def predict_shards(
    ghn: GHN,
    network: nn.Module | ArchData,
    folder: str | os.PathLike[str],
    *,
    shard_size: int = SHARD_SIZE,
    dtype: torch.dtype | None = None,
    seed: int | None = None,
    keep_classifier: bool = False,
    metadata: Mapping[str, Any] | None = None,
) -> ShardIndex:
    """Predicts the parameters of a network of any size into safetensors shards, holding one shard at a time.

    The numbers are those of :meth:`GHN.predict`. The format is that of Hugging Face's libraries: with the network's
    ``config.json`` in the same folder, Transformers' ``from_pretrained(folder)`` loads it, and
    :func:`~ghn_pyg.load_prediction` does into any network. The network itself may be on the meta device. Shared
    parameters are written once, as there. Memory is that of the GHN, one shard, and what is decoded at a time (about
    256 MiB).

    Nothing appears under the final names before everything is complete; the index comes last, so that a folder without
    it is incomplete. An earlier prediction in the folder is replaced then, other files stay. If the process is
    killed, a folder ``.unfinished-…`` may be left, to be removed.

    Args:
        ghn: The GHN.
        network: The network, on any device, or its graph.
        folder: Folder to write into; made if missing.
        shard_size: Largest size of a shard in bytes; a larger tensor has a shard of its own.
        dtype: Type of the predicted tensors; the GHN's own by default.
        seed: Seed of the rows of class tokens; drawn from PyTorch's global generator by default.
        keep_classifier: Leave the classification layer out.
        metadata: Further facts for the index, such as ``{"ghn": "ghn3xlm16"}``.

    Returns:
        The index: the file of each tensor, and ``metadata`` with ``total_size``, ``ghn_pyg`` (the version), ``config``
        (of the GHN), ``kept`` (parameters that are not predicted, with the reason), ``tied`` (further names of shared
        parameters) and what ``metadata`` adds.

    Raises:
        ValueError: If ``shard_size`` is not positive, or a batch is given.
        TypeError: If ``metadata`` does not go into JSON.
        FileExistsError: If the folder holds weights of another origin.
        OSError: If it cannot be written, as on a full disk. The folder is left as it was.

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
    weight = ghn.node_embedding.weight
    dtype = dtype or weight.dtype
    found = targets(graph)
    left_out = [target.spec.name for target in found if keep_classifier and target.classifier]
    sizes = {target.spec.name: target.spec.shape for target in found if target.spec.name not in left_out}
    facts = {
        **(metadata or {}),
        "config": ghn.config.to_dict(),
        "kept": {**graph.kept, **dict.fromkeys(left_out, CLASSIFIER_KEPT)},
        "tied": graph.tied,
    }
    json.dumps(facts)  # what JSON does not know shows before the work
    with shard_folder(folder) as unfinished:
        old = earlier_files(folder)
        check_disk(unfinished, sum(map(math.prod, sizes.values())) * dtype.itemsize)
        writer = ShardWriter(unfinished, shard_size)

        def out(target: Target) -> Tensor:
            return writer.empty(target.spec.name, target.spec.shape, dtype, weight.device)

        for name, shape in sizes.items():
            if 0 in shape:  # nothing to decode
                writer.empty(name, shape, dtype)
        with torch.no_grad():
            ghn.decode(graph, keep_classifier, out, seed)
        index, new = writer.finish(facts)
        exchange(old, new, Path(folder))
    return index
