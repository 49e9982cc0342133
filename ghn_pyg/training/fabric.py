"""Devices, processes and precision, by Lightning Fabric."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..utils.optional import require

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.plugins import MixedPrecision

_logger = logging.getLogger(__name__)


def make_fabric(precision: str = "32-true", device: str = "auto", processes: int = 1) -> Fabric:
    """Launches Fabric, for one process or as one of the processes that ``torchrun`` started.

    If a machine has more processes than GPUs, they share the GPUs and communicate by gloo. That can pay: training
    architectures consist of many small operations, too few per process to keep a GPU busy.

    Args:
        precision: As in :class:`~ghn_pyg.training.TrainConfig`. With ``"16-mixed"`` the loss scale grows after 100
            good steps and never falls below 1024. On a CPU, where half precision is slow, ``"16-mixed"`` becomes
            ``"32-true"`` with a warning.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        processes: Processes to compute with on a CPU, unless ``torchrun`` started some: with more than one, the others
            run the command of this process, its ``sys.argv``, from its beginning.

    Example:
        >>> make_fabric(device="cpu").world_size
        1
    """
    check_lightning()
    from lightning_fabric import Fabric

    kind = torch.device(device).type if device != "auto" else "cpu"
    if device == "auto" and (found := torch.accelerator.current_accelerator(check_available=True)):
        kind = found.type
    if precision == "16-mixed" and kind == "cpu":
        _logger.warning("computing in 32 bits: 16-mixed is for GPUs and can be ten times slower on a CPU")
        precision = "32-true"
    arguments: dict[str, Any] = {"precision": precision}
    if precision == "16-mixed":
        arguments = {"plugins": [half_precision(kind)]}
    if processes > 1 and kind == "cpu" and not is_torchrun():
        arguments |= {"devices": processes, "strategy": "ddp"}
    accelerator, _, index = device.partition(":")
    if index:
        arguments["devices"] = [int(index)]
    gpus = arguments.get("devices", range(torch.cuda.device_count())) if kind == "cuda" else ()
    fabric = Fabric(accelerator=accelerator, **{**_processes(gpus), **arguments})
    fabric.launch()
    return fabric


def check_lightning() -> None:
    """Raises an ImportError with the command to run if Lightning Fabric is not installed."""
    require("lightning_fabric", extra="train", purpose="training and evaluation")


def is_torchrun() -> bool:
    """Whether ``torchrun`` started this process."""
    return torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()


def _processes(gpus: Sequence[int]) -> dict[str, Any]:
    """The number of processes and machines that ``torchrun`` set; one of each without it."""
    if not is_torchrun():
        return {"devices": 1, "num_nodes": 1}
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    counts = {"devices": local, "num_nodes": int(os.environ["WORLD_SIZE"]) // local}
    if not 0 < len(gpus) < local:
        return counts
    from lightning_fabric.strategies.ddp import DDPStrategy

    # Processes share GPUs, which NCCL refuses.
    devices = [torch.device("cuda", gpus[process % len(gpus)]) for process in range(local)]
    return {**counts, "devices": 1, "strategy": DDPStrategy(parallel_devices=devices, process_group_backend="gloo")}


def half_precision(device: str) -> MixedPrecision:
    """Mixed 16-bit precision with GHN-3's gradient scaler."""
    from lightning_fabric.plugins import MixedPrecision

    return MixedPrecision("16-mixed", device, torch.amp.GradScaler(device, growth_interval=100))
