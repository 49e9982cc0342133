"""Processes, devices and precision, by Lightning Fabric."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.plugins import MixedPrecision

GROWTH_INTERVAL: Final = 100
SMALLEST_SCALE: Final = 1024.0

_logger = logging.getLogger(__name__)


class ProcessLostError(RuntimeError):
    """Another process of the run ended, or cannot be reached any more."""


def make_fabric(precision: str = "32-true", device: str = "auto", **options: Any) -> Fabric:
    """Starts the engine: alone, or as one of the processes that ``torchrun`` started.

    More processes than a machine has GPUs share them and talk by gloo. Training architectures are many small
    operations, of which one process cannot start enough to keep a GPU busy.

    Args:
        precision: As in :class:`~ghn_pyg.training.config.TrainConfig`. With ``"16-mixed"`` the scale of the loss grows
            after 100 good steps and never falls below 1024; on a CPU, most of which compute 16 bits many times slower,
            it is ``"32-true"``, which is logged.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        options: Further arguments of ``lightning_fabric.Fabric``, such as ``devices`` and ``num_nodes``.

    Raises:
        ImportError: If Lightning Fabric is missing.

    Example:
        >>> make_fabric(device="cpu").world_size
        1
    """
    check_lightning()
    from lightning_fabric import Fabric

    found = torch.accelerator.current_accelerator(check_available=True) if device == "auto" else torch.device(device)
    kind = "cpu" if found is None else found.type
    if precision == "16-mixed" and kind == "cpu":
        _logger.warning(
            "computing in 32 bits: 16-mixed is for GPUs, and a CPU may take ten times as long for it or more"
        )
        precision = "32-true"
    chosen: dict[str, Any] = {"precision": precision}
    if precision == "16-mixed":
        chosen = {"plugins": [half_precision(kind)]}
    name, _, index = device.partition(":")
    if index:
        chosen["devices"] = [int(index)]
    gpus = chosen.get("devices", range(torch.cuda.device_count())) if kind == "cuda" else ()
    fabric = Fabric(accelerator=name, **{**_processes(gpus), **chosen, **options})
    fabric.launch()
    return fabric


def check_lightning() -> None:
    """Raises an error that says what to do where Lightning Fabric is missing."""
    try:
        importlib.import_module("lightning_fabric")
    except ImportError as error:
        raise ImportError('training needs lightning-fabric; install it with: pip install "ghn_pyg[train]"') from error


def _processes(gpus: Sequence[int]) -> dict[str, Any]:
    """The processes on each machine and the machines, as ``torchrun`` tells them; one and one without it."""
    if not torch.distributed.is_available() or not torch.distributed.is_torchelastic_launched():
        return {"devices": 1, "num_nodes": 1}
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    found = {"devices": here, "num_nodes": int(os.environ["WORLD_SIZE"]) // here}
    return {**found, **_sharing(here, gpus)} if here > len(gpus) > 0 else found


def _sharing(processes: int, gpus: Sequence[int]) -> dict[str, Any]:
    """More processes than GPUs, which NCCL refuses."""
    from lightning_fabric.strategies.ddp import DDPStrategy

    devices = [torch.device("cuda", gpus[process % len(gpus)]) for process in range(processes)]
    return {"devices": 1, "strategy": DDPStrategy(parallel_devices=devices, process_group_backend="gloo")}


def half_precision(device: str) -> MixedPrecision:
    """Mixed precision of 16 bits with the published scaler."""
    from lightning_fabric.plugins import MixedPrecision

    return MixedPrecision("16-mixed", device, torch.amp.GradScaler(device, growth_interval=GROWTH_INTERVAL))


def scaler_of(fabric: Fabric) -> torch.amp.GradScaler | None:
    """The gradient scaler, where the precision has one."""
    scaler: torch.amp.GradScaler | None = getattr(fabric.strategy.precision, "scaler", None)
    return scaler


@contextlib.contextmanager
def together(fabric: Fabric) -> Iterator[None]:
    """Around what all ranks do together and nothing else, so that an error in it means that one of them is gone.

    Raises:
        ProcessLostError: If one is; each way of communication has an error of its own for it.
    """
    try:
        yield
    except RuntimeError as error:
        if fabric.world_size == 1:
            raise
        raise ProcessLostError(str(error)) from error


def add_up(fabric: Fabric, share: Tensor) -> Tensor:
    """The sum of a tensor over all ranks."""
    with together(fabric):
        total: Any = fabric.all_reduce(share, reduce_op="sum")
    return cast(Tensor, total)


def everywhere(fabric: Fabric, number: int) -> list[int]:
    """The numbers that all ranks have, in their order."""
    if fabric.world_size == 1:
        return [number]
    own = torch.tensor([number], device=fabric.device)
    joint = own.new_empty(fabric.world_size)
    with together(fabric):
        torch.distributed.all_gather_into_tensor(joint, own)
    return [int(one) for one in joint]


def agree(fabric: Fabric, module: torch.nn.Module) -> None:
    """Gives all ranks the weights of the first: machines differ in the last bits of what they compute."""
    if fabric.world_size > 1:
        with together(fabric):
            for tensor in module.state_dict().values():
                torch.distributed.broadcast(tensor, 0)


def join_gradients(fabric: Fabric, parameters: Iterable[Tensor]) -> None:
    """Adds up the gradients of all ranks.

    A parameter without a gradient gets zeros, so that the optimizer treats it alike whatever the number of ranks.
    """
    parameters = list(parameters)
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    if fabric.world_size == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    joint = add_up(fabric, torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, total in zip(gradients, joint.split([one.numel() for one in gradients]), strict=True):
        gradient.copy_(total.view_as(gradient))


def join_images(fabric: Fabric, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The whole batch of which each rank read a part."""
    if fabric.world_size == 1:
        return images, labels
    whole = []
    for share in (images, labels):
        joint = share.new_empty((len(share) * fabric.world_size, *share.shape[1:]))
        with together(fabric):
            torch.distributed.all_gather_into_tensor(joint, share.contiguous())
        whole.append(joint)
    return whole[0], whole[1]
