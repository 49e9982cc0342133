"""Rules for functions that use only the shape and type of an activation, and for checks of activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from ...utils import compat
from ...utils.compat import functions
from ...utils.nested_tensors import map_tensors
from ..constant_tensors import small, wanted_type
from ..tracer import Rule, Tracer, rule
from ..values import CONSTANT
from .open_layers import carry, open_in

_LIKE: Final = """
    zeros_like ones_like empty_like full_like new_zeros new_ones new_empty new_full new_tensor
    rand_like randn_like randint_like
"""


def _made_like(function: Callable[..., Tensor]) -> Rule:
    """A new tensor with the shape and type of another; it has data unless it is random or large."""

    def like(tracer: Tracer, *args: Any, **kwargs: Any) -> Tensor:
        # An element of a buffer may be the value to fill with. One that depends on activations does not matter.
        given = (tracer.lift(args[0]), *map_tensors(lambda value: 1 if tracer.is_abstract(value) else value, args[1:]))
        kwargs = map_tensors(lambda value: 1 if tracer.is_abstract(value) else value, kwargs)
        abstract = function(*given, **{**kwargs, "device": "meta"})
        if "rand" in function.__name__ or not small(abstract):
            return abstract
        return function(*given, **{**kwargs, "device": "cpu"})

    return like


for _function in functions(_LIKE):
    rule(_function)(_made_like(_function))


@rule(Tensor.to, Tensor.cuda, Tensor.cpu)
def move(tracer: Tracer, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """A change of type; abstract tensors have no device."""
    dtype = wanted_type(args, kwargs) or input.dtype
    if not tracer.is_abstract(input):  # if it is moved to an activation's device, it keeps its values
        return tracer.call(Tensor.to, input, dtype)
    moved = tracer.emit(input.shape, dtype, tracer.value(input) or CONSTANT)
    return carry(tracer, moved, open_in(tracer, input), input.shape)


for _name, _dtype in (("float", torch.float32), ("double", torch.float64), ("half", torch.float16)):
    rule(getattr(Tensor, _name))(lambda tracer, input, dtype=_dtype, **_: tracer.call(Tensor.to, input, dtype))


@rule(Tensor.type)
def to_type(tracer: Tracer, input: Tensor, dtype: Any = None, *_: Any, **__: Any) -> Any:
    """A change of type, or the name of the tensor's type."""
    plain = torch.empty(0, dtype=input.dtype, device="cpu")
    return plain.type() if dtype is None else tracer.call(Tensor.to, input, plain.type(dtype).dtype)


def _as(function: Callable[..., Tensor], attribute: str) -> Rule:
    """A change to the shape or type of another tensor."""
    return lambda tracer, input, other: tracer.call(function, input, getattr(other, attribute))


rule(Tensor.type_as)(_as(Tensor.to, "dtype"))
rule(Tensor.expand_as)(_as(Tensor.expand, "shape"))
rule(Tensor.view_as, Tensor.reshape_as)(_as(Tensor.reshape, "shape"))


# --- checks: activations are finite numbers --------------------------------------------------------------------------


def _always(answer: bool, elementwise: bool = True) -> Rule:
    return lambda tracer, input, **_: torch.tensor(answer, device="cpu").expand(input.shape if elementwise else ())


def _compared(function: Callable[..., Tensor], answer: bool) -> Rule:
    """A comparison; of a value with itself it is a check for NaN."""

    def compared(tracer: Tracer, input: Any, other: Any, **kwargs: Any) -> Tensor:
        if input is other:
            return torch.tensor(answer, device="cpu").expand(input.shape)
        return tracer.default(function, (input, other), kwargs)

    return compared


rule(*functions("isnan isinf isposinf isneginf"))(_always(False))
rule(*functions("isfinite"))(_always(True))
for _function in (torch.eq, Tensor.eq, Tensor.__eq__):
    rule(_function)(_compared(_function, True))
for _function in (torch.ne, Tensor.ne, torch.not_equal, Tensor.not_equal, Tensor.__ne__):
    rule(_function)(_compared(_function, False))
rule(*compat.IS_ALL_TRUE)(_always(True, elementwise=False))
rule(*compat.IS_ANY_TRUE)(_always(False, elementwise=False))
rule(*compat.ASSERT_ASYNC)(lambda tracer, *_, **__: None)
rule(*compat.IS_LEFT_ALIGNED)(lambda tracer, *_, **__: False)  # so that padding is not dropped
