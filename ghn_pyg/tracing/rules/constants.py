"""Rules for what takes no more than shape and type from activations, and for checks that these are sound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from ...utils.nested_tensors import map_tensors
from ..constant_tensors import RANDOM, small, wanted_type
from ..tracer import Rule, Tracer, rule
from ..values import CONSTANT
from .arithmetic import named

_LIKE: Final = "zeros_like ones_like empty_like full_like new_zeros new_ones new_empty new_full new_tensor"
_RANDOM_LIKE: Final = "rand_like randn_like randint_like"
_MISFITS: Final = "isnan isinf isposinf isneginf"


def _made_like(function: Callable[..., Tensor]) -> Rule:
    """A new tensor that takes no more than shape and type from another."""

    def like(tracer: Tracer, *args: Any, **kwargs: Any) -> Tensor:
        args, kwargs = map_tensors(tracer.lift, args), {**kwargs, "device": "meta"}
        abstract = function(*args, **kwargs)
        return (
            abstract if function in _RANDOM or not small(abstract) else function(*args, **{**kwargs, "device": "cpu"})
        )

    return like


_RANDOM: Final = RANDOM | named(_RANDOM_LIKE)
for _function in named(f"{_LIKE} {_RANDOM_LIKE}"):
    rule(_function)(_made_like(_function))


@rule(Tensor.to, Tensor.cuda, Tensor.cpu)
def move(tracer: Tracer, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """A change of type; abstract tensors have no device to move between."""
    dtype = wanted_type(args, kwargs) or input.dtype
    if not tracer.is_abstract(input):  # moved to where an activation is, it keeps its values
        return tracer.call(Tensor.to, input, dtype)
    return tracer.emit(input.shape, dtype, tracer.value(input) or CONSTANT)


def _as(function: Callable[..., Tensor], attribute: str) -> Rule:
    """A change after the model of another tensor, which leaves nothing else in the result."""

    def changed(tracer: Tracer, input: Tensor, other: Tensor) -> Tensor:
        return tracer.call(function, input, getattr(other, attribute))

    return changed


rule(Tensor.type_as)(_as(Tensor.to, "dtype"))
rule(Tensor.expand_as)(_as(Tensor.expand, "shape"))
rule(Tensor.view_as, Tensor.reshape_as)(_as(Tensor.reshape, "shape"))


# --- checks ----------------------------------------------------------------------------------------------------------


def _always(answer: bool) -> Rule:
    """The answer for every element: activations are finite numbers."""

    def answered(tracer: Tracer, input: Tensor, **_: Any) -> Tensor:
        return torch.tensor(answer, device="cpu").expand(input.shape)

    return answered


def _compared(function: Callable[..., Tensor], answer: bool) -> Rule:
    """A comparison; of a value with itself it asks for what is no number."""

    def compared(tracer: Tracer, input: Any, other: Any, **kwargs: Any) -> Tensor:
        if input is other:
            return torch.tensor(answer, device="cpu").expand(input.shape)
        return tracer.default(function, (input, other), kwargs)

    return compared


rule(*named(_MISFITS))(_always(False))
rule(*named("isfinite"))(_always(True))
for _function in named("eq __eq__"):
    rule(_function)(_compared(_function, True))
for _function in named("ne not_equal __ne__"):
    rule(_function)(_compared(_function, False))
del _function  # the last of a set, which is another in each process


@rule(torch._is_all_true, Tensor._is_all_true)
def all_true(tracer: Tracer, input: Tensor) -> Tensor:
    """What PyTorch asks of the arguments of its own functions: they are as they should be."""
    return torch.tensor(True, device="cpu")


@rule(torch._is_any_true, Tensor._is_any_true)
def any_true(tracer: Tracer, input: Tensor) -> Tensor:
    """The same question turned round."""
    return torch.tensor(False, device="cpu")


@rule(torch._assert_async)
def asserted(tracer: Tracer, *_: Any, **__: Any) -> None:
    """An assertion on activations holds."""


@rule(torch._nested_tensor_from_mask_left_aligned)
def left_aligned(tracer: Tracer, *_: Any, **__: Any) -> bool:
    """Whether padding could be dropped, which transformers ask before they take a shortcut; the answer is no."""
    return False
