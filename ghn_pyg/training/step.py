"""One step of meta-training: the gradient of the GHN for a batch of architectures and images."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint
from torch_geometric.data import Batch

from ..families.deepnets.architecture import Architecture
from ..families.deepnets.meta_batches import MetaBatch
from ..families.deepnets.network import Network
from ..models.ghn import GHN
from ..utils.compat import foreach_mul, foreach_norm
from ..utils.memory_guard import if_memory_suffices
from .seeds import preserve_rng, seed_rng

_MAX_LOSS: Final = 10.0
"""With balanced gradients, a network counts as at most this in the logged loss."""

_logger = logging.getLogger(__name__)


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
    ghn: GHN, meta_batch: MetaBatch, images: Tensor, labels: Tensor, *, architectures: int, balance: bool = False,
    **options: Any,
) -> Tensor:  # fmt: skip
    """Adds the gradient of the mean loss over all networks to the gradients of the GHN.

    The GHN predicts the parameters of all networks of a part at once. The networks then run on the images one after
    the other, so that only one network's activations are in memory. One backward pass takes the gradients of all
    predicted parameters through the GHN.

    The mean is taken over ``architectures``, their number on all ranks. ``options`` are those of
    :func:`network_gradient`. The GHN's encoder and the networks run in the context ``autocast``; decoder, classifiers
    and loss use single precision.

    With ``balance``, the gradient of each network's loss with respect to its own parameters is scaled to the norm 1, so
    that all networks have the same influence. Otherwise a network without norms, whose loss may be orders of magnitude
    larger, dominates. A network whose gradient is not finite is then left out, and a loss counts as at most 10.

    If memory does not suffice, a part is divided into its networks. A network first computes the activations in its
    cells a second time instead of keeping them, with the same result. Then it runs on fewer images at a time, whose
    batch norms use the statistics of these. If that does not help, the network is left out.

    Returns:
        This rank's shares of the mean loss, of the mean top-1 accuracy, of the fraction of networks left out because
        their gradient is not finite, and of those left out for lack of memory, of shape (4,); the sum over all ranks
        gives the means. Networks left out for lack of memory have neither loss nor accuracy.
    """
    shares = torch.zeros(4, device=images.device)
    arguments = (meta_batch, images, labels)
    parts = list(meta_batch.parts)
    while parts:
        part = parts.pop(0)
        add = functools.partial(_add_part, ghn, part, *arguments, architectures=architectures, balance=balance)
        if (found := if_memory_suffices(functools.partial(add, **options))) is not None:
            shares += found
        elif part.num_graphs > 1:
            parts[:0] = [Batch.from_data_list([graph]) for graph in part.to_data_list()]
        else:
            shares[3] += _leave_out(part.architecture[0], meta_batch.step) / architectures
    return shares


def _add_part(
    ghn: GHN, part: Batch, meta_batch: MetaBatch, images: Tensor, labels: Tensor, *, architectures: int, balance: bool,
    autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext, **options: Any,
) -> Tensor:  # fmt: skip
    """Adds the gradient of one part, or nothing in case of an error; returns its shares."""
    shares = torch.zeros(4, device=images.device)
    with autocast():
        predictions = ghn.predict(part, differentiable=True)
    predicted: list[Tensor] = []
    gradients: list[Tensor] = []
    for prediction, architecture in zip(predictions, part.architecture, strict=True):
        found, pieces, recompute = None, 1, False
        while found is None and (pieces == 1 or len(images) >= 2 * pieces):  # batch norms need two images
            gradient = functools.partial(
                network_gradient, prediction, architecture, meta_batch, images, labels, pieces=pieces,
                recompute=recompute, architectures=architectures, autocast=autocast, **options,
            )  # fmt: skip
            found = if_memory_suffices(gradient)
            pieces, recompute = 2 * pieces if recompute else 1, True
        if found is None:
            shares[3] += _leave_out(architecture, meta_batch.step) / architectures
            continue
        reached, loss, top1 = found
        own = normalized([*reached.values()], 1 / architectures) if balance else [*reached.values()]
        if own is not None:
            predicted += [prediction[name] for name in reached]
            gradients += own
        if balance:
            loss = loss.nan_to_num(_MAX_LOSS).clamp(max=_MAX_LOSS / architectures)
        shares += torch.stack([loss, top1, top1.new_tensor((own is None) / architectures), top1.new_zeros(())])
    if predicted:
        weights = [*ghn.parameters()]
        # Not backward, which leaves half of a gradient behind if memory does not suffice.
        changes = torch.autograd.grad(predicted, weights, gradients, allow_unused=True)
        for weight, change in zip(weights, changes, strict=True):
            if change is not None:
                weight.grad = change if weight.grad is None else weight.grad + change
    return shares


def network_gradient(
    prediction: Mapping[str, Tensor], architecture: Architecture, meta_batch: MetaBatch, images: Tensor, labels: Tensor,
    *, pieces: int = 1, recompute: bool = False, architectures: int = 1, penalty: float = 0.0,
    label_smoothing: float = 0.0, seed: int = 0, backward: Callable[[Tensor], Any] = Tensor.backward,
    autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> tuple[dict[str, Tensor], Tensor, Tensor]:  # fmt: skip
    """The gradient of a network's share of the mean loss with respect to its parameters, its loss and its accuracy.

    The images go through the network in ``pieces``, one after another. With ``recompute``, activations inside of cells
    are not kept for the backward pass but computed again. Dropout depends on ``seed``, not on the division into parts.
    ``backward`` is called with the loss, and may scale it.
    """
    leaves = {name: nn.Parameter(tensor.detach()) for name, tensor in prediction.items()}
    network = meta_network(architecture, meta_batch.num_classes, meta_batch.image_size, images.device.type)
    network.load_state_dict(leaves, strict=False, assign=True)  # operations without effect have no prediction
    if recompute:
        for cell in network.get_submodule("cells").children():
            cell.forward = functools.partial(checkpoint, cell.forward, use_reentrant=False)
    total, top1 = torch.zeros(2, device=images.device)
    for inputs, targets in zip(images.tensor_split(pieces), labels.tensor_split(pieces), strict=True):
        share = len(inputs) / len(images)
        with preserve_rng(images.device), autocast():
            seed_rng(images.device, seed, meta_batch.step, int.from_bytes(architecture.key[:8]))
            logits = network(inputs)
        loss = meta_loss(logits, targets, [*leaves.values()], penalty, label_smoothing) * share / architectures
        backward(loss)
        total = total + loss.detach()
        top1 = top1 + (logits.argmax(1) == targets).float().mean() * share / architectures
    return {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}, total, top1


def _leave_out(architecture: Architecture, step: int) -> int:
    """Logs that a network is left out, and counts it."""
    _logger.warning(
        "step %d: a network of %d cells with %s channels is left out, as memory does not suffice; smaller widths and "
        "node_budget need less, also for a run that is resumed", step, architecture.cells, architecture.width,
    )  # fmt: skip
    return 1


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
