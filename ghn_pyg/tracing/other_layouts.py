"""Sparse and nested tensors, which are more than a shape: an abstract dense tensor stands for each of them.

A function of them runs twice. On the tensors themselves, whose indices and lengths are real, it shows what kind of
tensor results; on the dense ones, by the rules of the trace, where the result comes from.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from ..utils.compat import NESTED_FACTORIES
from ..utils.nested_tensors import map_tensors, tensors_in
from .constant_tensors import computed, on_cpu
from .kept_reasons import kept_by
from .recorder import Recorder
from .registry import RuleError
from .values import CONSTANT, Value

_INDICES: Final = frozenset(
    getattr(Tensor, name)
    for name in ("indices", "_indices", "crow_indices", "col_indices", "ccol_indices", "row_indices")
)
"""Functions whose results are part of a sparse tensor and have data."""
MAKERS: Final[frozenset[Callable[..., Any]]] = frozenset((
    *(getattr(Tensor, f"to_sparse{kind}") for kind in ("", "_coo", "_csr", "_csc", "_bsr", "_bsc")),
    *(getattr(torch, f"sparse_{kind}_tensor") for kind in ("coo", "csr", "csc", "bsr", "bsc", "compressed")),
    *NESTED_FACTORIES,
))  # fmt: skip
"""Functions that make a sparse or nested tensor of dense ones."""


def is_dense(tensor: Tensor) -> bool:
    """Whether a tensor is neither sparse nor nested."""
    return tensor.layout is torch.strided and not tensor.is_nested


def dense_shape(tensor: Tensor) -> tuple[int, ...]:
    """The shape of a tensor; of a nested one when its parts are padded."""
    if not tensor.is_nested:
        return tuple(tensor.shape)
    parts = [tuple(part.shape) for part in tensor.unbind()]
    return (len(parts), *map(max, *parts)) if len(parts) > 1 else (len(parts), *sum(parts, ()))


def placeholder(tracer: Recorder, tensor: Tensor, value: Value) -> Tensor:
    """A copy of an input whose layout is kept; floating-point numbers in it count as unknown."""
    tracer.has_layouts = True
    copy = torch.zeros_like(tensor, device="cpu") if tensor.is_meta else tensor.detach().clone().cpu()
    if not copy.is_floating_point() and not copy.is_complex():
        return tracer.remember(copy, value)
    return _stands_for(tracer, tracer.emit(dense_shape(copy), copy.dtype, value), copy)


def concerns(tracer: Recorder, func: Callable[..., Any], args: Any, kwargs: Any) -> bool:
    """Whether a function takes or makes a sparse or nested tensor, and takes a tensor with unknown values."""
    tensors = list(tensors_in((args, kwargs)))
    if func not in MAKERS and all(map(is_dense, tensors)):
        return False
    return any(id(tensor) in tracer.dense or tracer.is_abstract(tensor) for tensor in tensors)


def interpret(
    tracer: Recorder, call: Callable[..., Any], func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """The result of a function that takes or makes sparse or nested tensors; ``call`` runs it by the rules."""
    kwargs = {name: value for name, value in kwargs.items() if name != "device"}

    dense = functools.partial(_dense, tracer)

    def with_data(tensor: Tensor) -> Tensor:
        if is_dense(tensor) and tracer.is_abstract(tensor):
            is_index = not tensor.is_floating_point() and tensor.dtype != torch.bool  # 0 is always in range
            return torch.full(tensor.shape, 0 if is_index else 1, dtype=tensor.dtype, device="cpu")
        if tracer.owns(tensor):  # the network's own memory stays as it is
            return tensor.to("cpu", copy=True)
        return tensor if tensor.is_meta else tensor.cpu()

    given = list(tensors_in((args, kwargs)))
    if func is F.scaled_dot_product_attention:  # has no kernel for nested tensors on some machines
        real = with_data(given[0]).clone()
    else:
        real = computed(func, map_tensors(with_data, args), map_tensors(with_data, kwargs), [])
    if (count := len(list(tensors_in([real])))) == 0:
        return on_cpu(func, real)
    results: list[Tensor] = []
    if not all(is_dense(x) or x.is_meta for x in given):
        try:
            result = call(func, (), map_tensors(dense, args), map_tensors(dense, kwargs))
            results = list(map(dense, tensors_in([result])))
        except RuleError:
            raise
        except (TypeError, ValueError, IndexError, RuntimeError):  # functions of a layout do not take dense tensors
            pass
    if len(results) != count:
        merged = tracer.merged(map(dense, given))
        value = Value(tracer.fold(merged.params, kept_by(func), merged.sources)) if merged.sources else merged
        results = [tracer.emit((), torch.float32, value)] * count
    of_dense = iter(results)
    return map_tensors(lambda tensor: _result(tracer, func, tensor, next(of_dense)), real)


def _result(tracer: Recorder, func: Callable[..., Any], real: Tensor, dense: Tensor) -> Tensor:
    """A result that has the kind of ``real``, and comes from where ``dense`` comes from."""
    value = tracer.value(dense) or CONSTANT
    if func in _INDICES:
        return tracer.remember(real, Value(value.sources))
    shape = dense_shape(real)
    if (dense.shape, dense.dtype) != (shape, real.dtype):
        dense = tracer.emit(shape, real.dtype, value)
    return dense if is_dense(real) else _stands_for(tracer, dense, real)


def _stands_for(tracer: Recorder, dense: Tensor, tensor: Tensor) -> Tensor:
    tracer.has_layouts = True
    tracer.dense[id(tensor)] = dense
    tracer.origin(tensor).value = tracer.value(dense)
    return tensor


def _dense(tracer: Recorder, tensor: Tensor) -> Tensor:
    """What stands for a tensor in a trace: itself if it is dense."""
    if is_dense(tensor) or tensor.is_meta:  # PyTorch makes nested tensors with the help of an empty one on meta
        return tensor
    if (dense := tracer.dense.get(id(tensor))) is not None:
        return dense
    dense = torch.zeros((), dtype=tensor.dtype, device="cpu").expand(dense_shape(tensor))  # has data, as the tensor has
    return dense if (value := tracer.value(tensor)) is None else tracer.remember(dense, value)
