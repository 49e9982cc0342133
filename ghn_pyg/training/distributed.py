"""Communication between the ranks of a run: weights, gradients and image batches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .checkpoints import TrainingError

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@contextlib.contextmanager
def collective(fabric: Fabric) -> Iterator[None]:
    """For operations of all ranks: turns their errors, which differ by backend, into a TrainingError."""
    try:
        yield
    except RuntimeError as error:
        if fabric.world_size == 1:
            raise
        raise TrainingError(
            f"another process of the run ended or cannot be reached ({error}); start the same command again to resume "
            "from the last checkpoint"
        ) from error


def barrier(fabric: Fabric) -> None:
    """Waits for all ranks."""
    with collective(fabric):
        fabric.barrier()


def all_reduce_sum(fabric: Fabric, tensor: Tensor) -> Tensor:
    """The sum of a tensor over all ranks."""
    with collective(fabric):
        total: Any = fabric.all_reduce(tensor, reduce_op="sum")
    return total


def all_gather(fabric: Fabric, tensor: Tensor) -> Tensor:
    """The tensors of all ranks, joined along the first dimension."""
    if fabric.world_size == 1:
        return tensor
    joint = tensor.new_empty((fabric.world_size * len(tensor), *tensor.shape[1:]))
    with collective(fabric):
        # Fabric's all_gather calls a deprecated function of PyTorch.
        torch.distributed.all_gather_into_tensor(joint, tensor.contiguous())
    return joint


def broadcast_weights(fabric: Fabric, module: nn.Module) -> None:
    """Copies the weights of rank 0 to all ranks: machines differ in the last bits of what they compute."""
    if fabric.world_size > 1:
        with collective(fabric):
            for tensor in module.state_dict().values():
                torch.distributed.broadcast(tensor, 0)  # Fabric's broadcast would pickle it


def all_reduce_gradients(fabric: Fabric, parameters: Iterable[Tensor]) -> None:
    """Replaces gradients by their sum over all ranks.

    A parameter without a gradient gets zeros, so that the optimizer does the same for any number of ranks.
    """
    gradients = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    if fabric.world_size > 1:
        total = all_reduce_sum(fabric, nn.utils.parameters_to_vector(gradients))
        nn.utils.vector_to_parameters(total, gradients)
