"""One step of meta-training: the gradient of the GHN for a batch of architectures and images."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..families.deepnets.architecture import Architecture
from ..families.deepnets.meta_batches import MetaBatch
from ..families.deepnets.network import Network
from ..models.ghn import GHN
from ..utils.compat import foreach_mul, foreach_norm
from .seeds import preserve_rng, seed_rng

_MAX_LOSS: Final = 10.0
"""With balanced gradients, a network counts as at most this in the logged loss."""


def meta_loss(
    logits: Tensor, labels: Tensor, parameters: Sequence[Tensor], penalty: float = 0.0, label_smoothing: float = 0.0
) -> Tensor:
    r"""The loss of one network: :math:`\mathrm{CE}(z, y) + \lambda \sum_p \lVert p \rVert_F` (GHN-3, arXiv 2303.04143).

    Logits have the shape (B, K), labels (B,), and :math:`\lambda` is ``penalty``. The loss is in single precision.

    Example:
        >>> meta_loss(torch.zeros(3, 7), torch.tensor([0, 1, 2]), [torch.full((2, 2), 3.0)], penalty=0.5)
        tensor(4.9459)
    """
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
    if penalty:
        total, _ = _SumOfNorms.apply(*parameters)
        loss = loss + penalty * total
    return loss


class _SumOfNorms(torch.autograd.Function):
    """The sum of the norms of tensors, and the norms.

    Networks have hundreds of tensors; autograd takes five operations for each, a fifth of a step on a GPU.
    """

    @staticmethod
    def forward(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        norms = foreach_norm(tensors)
        return norms.sum(), norms

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor, ...]:
        *tensors, norms = ctx.saved_tensors
        return foreach_mul(tensors, torch.where(norms == 0, 0, gradient / norms).tolist())


def meta_gradient(
    ghn: GHN, meta_batch: MetaBatch, images: Tensor, labels: Tensor, *, architectures: int, penalty: float = 0.0,
    label_smoothing: float = 0.0, seed: int = 0, balance: bool = False,
    backward: Callable[[Tensor], Any] = Tensor.backward,
    autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> Tensor:  # fmt: skip
    """Adds the gradient of the mean loss over all networks to the gradients of the GHN.

    The GHN predicts the parameters of all networks of a part at once. The networks then run on the images one after
    the other, so that only one network's activations are in memory. One backward pass takes the gradients of all
    predicted parameters through the GHN.

    The mean is taken over ``architectures``, their number on all ranks. Dropout depends on ``seed``, not on the
    division into parts. ``backward`` is called with each network's share of the loss, and may scale it. The GHN's
    encoder and the networks run in the context ``autocast``; decoder, classifiers and loss use single precision.

    With ``balance``, the gradient of each network's loss with respect to its own parameters is scaled to the norm 1, so
    that all networks have the same influence. Otherwise a network without norms, whose loss may be orders of magnitude
    larger, dominates. A network whose gradient is not finite is then left out, and a loss counts as at most 10.

    Returns:
        This rank's shares of the mean loss, of the mean top-1 accuracy and of the fraction of networks left out, of
        shape (3,); the sum over all ranks gives the means.
    """
    shares = torch.zeros(3, device=images.device)
    for part in meta_batch.parts:
        with autocast():
            predictions = ghn.predict(part, differentiable=True)
        predicted: list[Tensor] = []
        gradients: list[Tensor] = []
        for prediction, architecture in zip(predictions, part.architecture, strict=True):
            leaves = {name: tensor.detach().requires_grad_() for name, tensor in prediction.items()}
            network = meta_network(architecture, meta_batch.num_classes, meta_batch.image_size, images.device.type)
            with preserve_rng(images.device), autocast():
                seed_rng(images.device, seed, meta_batch.step, int.from_bytes(architecture.key[:8]))
                logits = torch.func.functional_call(network, leaves, (images,))
            loss = meta_loss(logits, labels, [*leaves.values()], penalty, label_smoothing) / architectures
            backward(loss)
            reached = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
            own = normalized([*reached.values()], 1 / architectures) if balance else [*reached.values()]
            if own is not None:
                predicted += [prediction[name] for name in reached]
                gradients += own
            share = (
                loss.detach().nan_to_num(_MAX_LOSS).clamp(max=_MAX_LOSS / architectures) if balance else loss.detach()
            )
            top1 = (logits.argmax(1) == labels).float().mean() / architectures
            shares += torch.stack([share, top1, top1.new_tensor((own is None) / architectures)])
        if predicted:
            torch.autograd.backward(predicted, gradients)
    return shares


def normalized(gradients: Sequence[Tensor], norm: float) -> Sequence[Tensor] | None:
    """Scales gradients so that their total norm is ``norm``; None if all are zero or one is not finite.

    Example:
        >>> normalized([torch.tensor([3.0]), torch.tensor([4.0])], 2.5)
        (tensor([1.5000]), tensor([2.]))
    """
    total = float(torch.nn.utils.get_total_norm(gradients))
    return foreach_mul(gradients, [norm / total] * len(gradients)) if 0 < total < math.inf else None


def meta_network(architecture: Architecture, num_classes: int, image_size: int, device: str) -> nn.Module:
    """A network on the meta device, in training mode, whose classifier runs in single precision on ``device``."""
    with torch.device("meta"):
        network = Network(architecture, num_classes, image_size)
    classifier = network.get_submodule("classifier")
    forward = classifier.forward

    def single_precision(x: Tensor) -> Tensor:
        with torch.autocast(device, enabled=False):
            return forward(x.to(next(classifier.parameters()).dtype))

    classifier.forward = single_precision
    return network
