"""One step of meta-training: from architectures and images to the gradient of the GHN."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..families.deepnets import Architecture, MetaBatch, Network
from ..models.ghn import GHN
from .seeds import reseed, restored

_MOST: Final = 10.0


def meta_loss(
    logits: Tensor, labels: Tensor, parameters: Sequence[Tensor], penalty: float = 0.0, label_smoothing: float = 0.0
) -> Tensor:
    r"""The loss of one network: :math:`\mathrm{CE}(z, y) + \lambda \sum_p \lVert p \rVert_F` (GHN-3, arXiv 2303.04143).

    Args:
        logits: Of shape (B, K).
        labels: Of shape (B,).
        parameters: All predicted tensors of the network.
        penalty: :math:`\lambda`.
        label_smoothing: Share of a label that is spread over all classes.

    Returns:
        A scalar, in single precision.

    Example:
        >>> meta_loss(torch.zeros(3, 7), torch.tensor([0, 1, 2]), [torch.full((2, 2), 3.0)], penalty=0.5)
        tensor(4.9459)
    """
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
    if penalty:
        norms, _ = _Norms.apply(*parameters)
        loss = loss + penalty * norms
    return loss


class _Norms(torch.autograd.Function):
    """The sum of the norms of tensors, and the norms.

    Networks have hundreds of tensors; autograd by itself takes five operations for each, a fifth of a step on a GPU.
    """

    @staticmethod
    def forward(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        norms = torch.stack(torch._foreach_norm(tensors))
        return norms.sum(), norms

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor, ...]:
        *tensors, norms = ctx.saved_tensors
        factors = torch.where(norms == 0, 0, gradient / norms)
        return tuple(torch._foreach_mul(tensors, factors.tolist()))


def meta_gradient(
    ghn: GHN, meta_batch: MetaBatch, images: Tensor, labels: Tensor, *, architectures: int, penalty: float = 0.0,
    label_smoothing: float = 0.0, seed: int = 0, balance: bool = False,
    backward: Callable[[Tensor], Any] = Tensor.backward,
    autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> Tensor:  # fmt: skip
    """Adds the gradient of the mean loss over all networks to the GHN's.

    The parameters of all networks of a part are predicted together. The networks, which have no memory of their own,
    then run on the images one after the other; each one's activations are gone before the next one runs, and one
    backward pass takes the gradients of all predicted parameters through the GHN.

    Args:
        ghn: The GHN.
        meta_batch: The architectures of this rank.
        images: Of shape (B, 3, H, W).
        labels: Of shape (B,).
        architectures: Architectures on all ranks together, which the mean is taken over.
        penalty: See :func:`meta_loss`.
        label_smoothing: See :func:`meta_loss`.
        seed: Seed of dropout, which does not depend on how architectures are parted.
        balance: Whether the gradient of each network's loss with respect to its own parameters is scaled to the norm
            1, so that all networks have the same say. Otherwise a network without norms, whose loss can be many orders
            larger than those of others, drowns them. One whose gradient is not finite is then left out, and a loss
            counts as 10 at most.
        backward: Called with each network's share of the loss; it may scale it.
        autocast: Context for the GHN's encoder and the networks. Decoder, classifiers and loss are in single precision.

    Returns:
        The rank's shares of the loss, of top-1 accuracy and of networks that are left out, of shape (3,); over all
        ranks they add up to the means.
    """
    share = torch.zeros(3, device=images.device)
    for part in meta_batch.micro_batches:
        with autocast():
            predictions = ghn.predict(part, differentiable=True)
        predicted: list[Tensor] = []
        gradients: list[Tensor] = []
        for prediction, architecture in zip(predictions, part.architecture, strict=True):
            leaves = {name: tensor.detach().requires_grad_() for name, tensor in prediction.items()}
            network = skeleton(architecture, meta_batch.num_classes, meta_batch.image_size, images.device.type)
            with restored(images.device), autocast():
                reseed(images.device, seed, meta_batch.step, int.from_bytes(architecture.key[:8]))
                logits = torch.func.functional_call(network, leaves, (images,))
            loss = meta_loss(logits, labels, [*leaves.values()], penalty, label_smoothing) / architectures
            backward(loss)
            reached = [name for name, leaf in leaves.items() if leaf.grad is not None]
            own = [cast(Tensor, leaves[name].grad) for name in reached]
            used = not balance or normalize_(own, 1 / architectures)
            if used:
                predicted += [prediction[name] for name in reached]
                gradients += own
            counted = loss.detach().nan_to_num(_MOST).clamp(max=_MOST / architectures) if balance else loss.detach()
            top1 = (logits.argmax(1) == labels).float().mean() / architectures
            share += torch.stack([counted, top1, top1.new_tensor((not used) / architectures)])
        if predicted:
            torch.autograd.backward(predicted, gradients)
    return share


def normalize_(gradients: Sequence[Tensor], norm: float) -> bool:
    """Scales gradients, in place, so that all together have a given norm.

    Returns:
        Whether they have it now: not if they are all zero, or one is not finite.

    Example:
        >>> gradients = [torch.tensor([3.0]), torch.tensor([4.0])]
        >>> normalize_(gradients, 2.5), gradients
        (True, [tensor([1.5000]), tensor([2.])])
    """
    before = float(torch.nn.utils.get_total_norm(gradients))
    if not 0 < before < math.inf:
        return False
    torch._foreach_mul_(list(gradients), norm / before)
    return True


def skeleton(architecture: Architecture, num_classes: int, image_size: int, device: str) -> nn.Module:
    """A network on the meta device, in training mode, whose classifier runs in single precision on ``device``."""
    with torch.device("meta"):
        network = Network(architecture, num_classes, image_size)
    classifier = network.get_submodule("classifier")
    forward = classifier.forward

    def single(x: Tensor) -> Tensor:
        with torch.autocast(device, enabled=False):
            return forward(x.to(next(classifier.parameters()).dtype))

    classifier.forward = single
    return network
