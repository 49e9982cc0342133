"""Small networks of other libraries, which :mod:`benchmarks.wild` scans. Nothing is downloaded.

A library is a function that imports it and returns its networks: name → function that returns the network and its
inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from . import equivariant, graphs, images, sequences, vision, wrappers
from .common import Networks

LIBRARIES: Final[dict[str, Callable[[], Networks]]] = {
    "pytorchcv": images.pytorchcv,
    "ultralytics": images.ultralytics,
    "vit_pytorch": vision.vit_pytorch,
    "segmentation_models_pytorch": vision.segmentation_models_pytorch,
    "open_clip": vision.open_clip,
    "kornia": vision.kornia,
    "lightly": vision.lightly,
    "geffnet": vision.geffnet,
    "pretrainedmodels": vision.pretrainedmodels,
    "torchxrayvision": vision.torchxrayvision,
    "torch_geometric": graphs.torch_geometric,
    "e3nn": equivariant.e3nn,
    "peft": wrappers.peft,
    "x_transformers": sequences.x_transformers,
    "diffusers": sequences.diffusers,
    "torchaudio": sequences.torchaudio,
    "speechbrain": sequences.speechbrain,
    "snntorch": sequences.snntorch,
    "ncps": sequences.ncps,
    "zuko": sequences.zuko,
    "nflows": sequences.nflows,
    "monai": sequences.monai,
    "torch": wrappers.torch_wrappers,
}
