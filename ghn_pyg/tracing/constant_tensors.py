"""Tensors that depend on neither activations nor parameters, such as masks and position counters: real data on the CPU.

Activations of a trace have no data and so no device. Masks that a network creates on the device of its activations, or
moves there, must keep their data, so every tensor of a trace reports the CPU as its device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from ..utils.compat import device_constructors, functions
from ..utils.nested_tensors import map_tensors

FACTORIES: Final[frozenset[Callable[..., Any]]] = frozenset((*device_constructors(), torch.normal))
"""Functions that create a tensor from numbers."""

RANDOM: Final = frozenset((torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal))
DRAWING: Final = frozenset((Tensor.uniform_, Tensor.bernoulli_, torch.bernoulli, Tensor.bernoulli))
"""Functions of a tensor with data that draw numbers."""
_SEEDED: Final = functions(
    """rand randn randint randperm normal rand_like randn_like randint_like bernoulli multinomial poisson binomial
    random_ uniform_ normal_ bernoulli_ cauchy_ exponential_ geometric_ log_normal_"""
)
NOISE: Final = functions(
    """dropout dropout_ dropout1d dropout2d dropout3d alpha_dropout alpha_dropout_ feature_dropout feature_dropout_
    feature_alpha_dropout feature_alpha_dropout_ rrelu rrelu_"""
)
"""Functions that draw a number for each element of an activation."""
_SIZED: Final = frozenset((torch.zeros, torch.ones, torch.empty, torch.full, torch.eye))
_SIZE_LIMIT: Final = 1 << 20
_DRAWN: Final = 64  # random numbers that have values; more of them are noise
_MOVES: Final = frozenset((Tensor.to, Tensor.cuda, Tensor.cpu))
_CPU: Final = torch.device("cpu")
_DEVICE_FLAGS: Final = frozenset(("is_cpu", "is_cuda", "is_meta"))


def on_cpu(attribute: Callable[..., Any], result: Any) -> Any:
    """What a tensor's attribute reports during a trace: ``result``, or the CPU where it is about the device."""
    kind = type(result)
    if kind is torch.device:
        return _CPU
    if kind is bool and (name := attribute.__self__.__name__) in _DEVICE_FLAGS:  # type: ignore[attr-defined]
        return name == "is_cpu"
    return result


def small(sizes: Tensor) -> bool:
    """Whether a tensor of the shape of ``sizes`` may have data: a large one is no mask or counter."""
    return sizes.numel() <= _SIZE_LIMIT


def seeded(function: Callable[..., Any], kwargs: dict[str, Any], generator: torch.Generator) -> dict[str, Any]:
    """The arguments of a function with a generator of the trace, if it would draw from the one of the program."""
    if function not in _SEEDED or kwargs.get("generator") is not None:
        return kwargs
    return kwargs | {"generator": generator}


def created(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], number: float | None) -> Any:
    """A tensor created from numbers. Large ones and much noise get no data: nothing depends on their values.

    A single random number may decide whether a layer is dropped; ``number``, from 0 to 1, may stand for it.
    """
    if function in RANDOM or function in _SIZED:
        plain = {name: value for name, value in kwargs.items() if name != "generator"}
        abstract = function(*args, **plain, device="meta")
        if number is not None and function is torch.rand and abstract.numel() == 1:
            return torch.full_like(abstract, _fraction(number), device="cpu")
        if number is not None and function is torch.randint and abstract.numel() == 1:
            bounds = [bound for bound in (*args[:2], kwargs.get("high")) if isinstance(bound, int)]
            low, high = bounds if len(bounds) > 1 else (kwargs.get("low", 0), *bounds)
            return torch.full_like(abstract, low + int((high - low) * _fraction(number)), device="cpu")
        if not small(abstract) or (function in RANDOM and abstract.numel() > _DRAWN):
            return abstract
    return function(*args, **kwargs, device="cpu")


def drawn(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], number: float | None) -> Any:
    """A single number that ``function`` draws into a tensor or from its probability; ``None`` if it does not."""
    if number is None or args[0].numel() != 1:
        return None
    if function is Tensor.uniform_:
        low, high = (*args[1:], *(kwargs.get("from", 0.0), kwargs.get("to", 1.0))[len(args) - 1 :])[:2]
        return args[0].fill_(low + (high - low) * _fraction(number))
    if function is Tensor.bernoulli_:
        return args[0].fill_(torch.as_tensor(kwargs.get("p", (*args, 0.5)[1])) > _fraction(number))
    if function in (torch.bernoulli, Tensor.bernoulli):
        probability = torch.as_tensor(kwargs.get("p", (*args, args[0])[1]))
        return (probability > _fraction(number)).to(args[0].dtype).reshape(args[0].shape)
    return None


def _fraction(number: float) -> float:
    return min(number, 1 - 2**-24)


def computed(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[Tensor]) -> Any:
    """A function of tensors with data, on whatever device they are."""
    if any(tensor.device != _CPU for tensor in tensors):
        args, kwargs = map_tensors(Tensor.cpu, args), map_tensors(Tensor.cpu, kwargs)
    if function in FACTORIES and function is not torch.normal:
        return function(*args, **kwargs, device="cpu")
    if function not in _MOVES:
        return function(*args, **kwargs)
    dtype = wanted_type(args[1:], kwargs)
    return args[0].to(args[0].dtype if dtype is None else dtype, copy=bool(kwargs.get("copy")))


def wanted_type(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.dtype | None:
    """The type that the arguments of ``Tensor.to`` name, directly or as that of another tensor."""
    named = [arg for arg in (*args, *kwargs.values()) if isinstance(arg, (torch.dtype, Tensor))]
    return next((arg if isinstance(arg, torch.dtype) else arg.dtype for arg in named), None)
