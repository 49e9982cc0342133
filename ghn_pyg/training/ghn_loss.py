"""The loss of meta-training as a module, for training loops of one's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..families.deepnets.meta_batches import MetaBatch
from ..models.ghn import GHN
from .step import network_gradient


class GHNLoss(nn.Module):
    r"""The mean loss of all networks of a meta-batch, whose gradient reaches the GHN.

    :func:`~ghn_pyg.training.train` needs no such loop. For one of your own with
    :class:`~torch.nn.parallel.DistributedDataParallel`, mind two traps that this module avoids:

    - Predict inside the wrapped forward. DDP averages gradients only if the wrapped module's ``forward`` made them;
      after ``ddp.module.predict(…)`` each rank would silently train a GHN of its own. So wrap the loss, not the GHN.
    - One forward a step. DDP starts to average during the backward pass and cannot take another forward before it ends.
      So give all architectures of a rank's step to one call, whatever their number of parts.

    Some weights have no gradient in a step, as no network needs them: wrap with ``find_unused_parameters=True``.

    Networks run one after the other, with only one network's activations in memory, and their gradients are computed in
    the forward pass. They are in training mode. Dropout depends on ``seed``, step and network, not on the rank.

    Args:
        ghn: The GHN.
        architectures: Architectures in a step, on all ranks together. The loss is this rank's share of their mean,
            times the number of ranks, so that DDP's mean over the ranks is that of one process.
        penalty: Weight of the Frobenius norms of predicted tensors; see :func:`~ghn_pyg.training.step.meta_loss`.
        label_smoothing: Share of a label that is spread over all classes.
        seed: Seed of dropout.

    Shapes:
        - images: (B, 3, H, W), the same on all ranks; labels: (B,).
        - output: ().

    Example:
        >>> from ghn_pyg import from_pretrained
        >>> from ghn_pyg.data import load_images
        >>> from ghn_pyg.families.deepnets.meta_batches import MetaBatches
        >>> from ghn_pyg.families.deepnets.width_sampling import WidthRule
        >>> ghn, digits = from_pretrained("digits"), load_images("digits")
        >>> step = GHNLoss(ghn.train(), architectures=1)  # DistributedDataParallel(step, find_unused_parameters=True)
        >>> optimizer = torch.optim.AdamW(ghn.parameters(), 1e-3)
        >>> for meta_batch in MetaBatches(1, image_size=16, widths=WidthRule(widths=(8,)), seed=3):
        ...     loss = step(meta_batch, *digits.train.batch(range(16)))
        ...     optimizer.zero_grad()
        ...     loss.backward()
        ...     optimizer.step()
        ...     break
        >>> loss.shape
        torch.Size([])
    """

    def __init__(
        self, ghn: GHN, architectures: int, *, penalty: float = 0.0, label_smoothing: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__()
        self.ghn = ghn
        self.architectures = architectures
        self.options: dict[str, Any] = {"penalty": penalty, "label_smoothing": label_smoothing, "seed": seed}

    def forward(self, meta_batch: MetaBatch, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of this rank's architectures, as one number to call ``backward`` on."""
        ranks = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        total, product = images.new_zeros(()), images.new_zeros(())
        for part in meta_batch.parts:
            for prediction, architecture in zip(
                self.ghn.predict(part, differentiable=True), part.architecture, strict=True
            ):
                gradients, loss, _ = network_gradient(
                    prediction, architecture, meta_batch, images, labels, architectures=self.architectures,
                    **self.options,
                )  # fmt: skip
                total = total + loss
                # Its gradient with respect to the prediction is that of the loss.
                product = product + sum((prediction[name] * each).sum() for name, each in gradients.items())
        return ranks * (total + product - product.detach())

    def extra_repr(self) -> str:
        """The settings, for ``repr``."""
        return ", ".join([f"architectures={self.architectures}", *(f"{n}={v}" for n, v in self.options.items())])
