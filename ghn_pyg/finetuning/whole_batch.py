"""Training on parts of a batch, one in each process, with the result of training on the whole batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..training.distributed import collective

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_DROPOUTS: Final = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d)


class WholeBatch(TorchFunctionMode):
    """In this context, networks that run on this process's part of a batch compute what they do on all of it.

    - Batch norms use the statistics of the whole batch. PyTorch's :class:`torch.nn.SyncBatchNorm` does so on GPUs only,
      and not for norms of other libraries.
    - Dropout and drop path draw their masks for the whole batch, from generators with the same state in all processes.
      This holds for tensors whose first dimension is the batch, or a multiple of it. Others, and dropout inside of
      PyTorch's attention, get the same masks in all processes, so that they differ from those of a single process.

    All parts must have the same number of images.

    Args:
        fabric: The engine.
        images: Number of images in a part.
    """

    def __init__(self, fabric: Fabric, images: int) -> None:
        super().__init__()
        self._fabric = fabric
        self._images = images

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm:
            return self._batch_norm(*args, **kwargs)
        if func in _DROPOUTS:
            return self._dropout(func, *args, **kwargs)
        if func is torch.Tensor.bernoulli_:
            return self._draw(*args, **kwargs)
        return func(*args, **kwargs)

    def _batch_norm(
        self, x: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
        bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
    ) -> Tensor:  # fmt: skip
        if not training:
            return F.batch_norm(x, running_mean, running_var, weight, bias, eps=eps)
        values = x.to(torch.promote_types(x.dtype, torch.float))
        dims, shape = [0, *range(2, x.dim())], [1, -1, *[1] * (x.dim() - 2)]
        mean = self._mean(values.mean(dims))
        centred = values - mean.view(shape)
        var = self._mean(centred.square().mean(dims))
        count = x.numel() // x.size(1) * self._fabric.world_size
        with torch.no_grad():
            for statistic, value in ((running_mean, mean), (running_var, var * count / (count - 1))):
                if statistic is not None:
                    statistic.lerp_(value.to(statistic.dtype), momentum)
        scale = (var + eps).rsqrt() if weight is None else (var + eps).rsqrt() * weight
        result = centred * scale.view(shape)
        return (result if bias is None else result + bias.view(shape)).to(x.dtype)

    def _mean(self, value: Tensor) -> Tensor:
        total: Tensor = _Sum.apply(value, self._fabric)
        return total / self._fabric.world_size

    def _dropout(self, func: Any, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or not p or len(x) % self._images:
            result: Tensor = func(x, p, training, inplace)
            return result
        mask = self._part(func(torch.cat([torch.ones_like(x)] * self._fabric.world_size), p))
        return x.mul_(mask) if inplace else x * mask

    def _draw(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not x.dim() or len(x) % self._images:
            return x.bernoulli_(*args, **kwargs)
        return x.copy_(self._part(torch.cat([x] * self._fabric.world_size).bernoulli_(*args, **kwargs)))

    def _part(self, whole: Tensor) -> Tensor:
        return whole.chunk(self._fabric.world_size)[self._fabric.global_rank]


class _Sum(torch.autograd.Function):
    """The sum over all ranks, whose gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, fabric: Fabric) -> Tensor:
        ctx.fabric = fabric
        return _Sum.sum(value, fabric)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        return _Sum.sum(gradients[0], ctx.fabric), None

    @staticmethod
    def sum(value: Tensor, fabric: Fabric) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        with collective(fabric):
            torch.distributed.all_reduce(total)  # Fabric's all_reduce also waits at a barrier
        return total
