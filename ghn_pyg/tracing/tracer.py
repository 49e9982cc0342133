"""Runs a network's forward pass on tensors without data and records the steps that may become nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from torch._ops import OpOverloadPacket
from torch.overrides import TorchFunctionMode

from ..utils.nested_tensors import map_tensors, tensors_in
from .constants import FACTORIES, computed, made, placed
from .functions import ALIASES, ARRAYS, IN_PLACE, QUERIES
from .kept import Kept, enters
from .recorder import Recorder
from .steps import Sources
from .values import CONSTANT, Value
from .weight_parts import follow

Rule = Callable[..., Any]
"""``rule(tracer, *args, **kwargs)``: what a PyTorch function does to abstract tensors."""

RULES: Final[dict[Callable[..., Any] | str, Rule]] = {}
"""PyTorch function, or name of an extension's operator → rule; what has none is run for its shape and folded away."""


_REASONS: Final[dict[Callable[..., Any], Kept]] = {
    Tensor.__setitem__: Kept.TOKEN, torch.where: Kept.TOKEN, torch.prelu: Kept.SLOPE, Tensor.prelu: Kept.SLOPE
}  # fmt: skip

_QUESTIONS: Final = 1024
"""As many times a module may ask for values before it counts as a loop without an end."""


def rule(*functions: Callable[..., Any] | str) -> Callable[[Rule], Rule]:
    """Registers the decorated rule for PyTorch functions."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(functions, function))
        return function

    return register


def _reason(func: Callable[..., Any]) -> str:
    """Why a parameter is kept that enters a function without a rule."""
    return _REASONS.get(func) or enters(getattr(func, "__name__", "a function"))


class Tracer(Recorder, TorchFunctionMode):
    """Interprets a forward pass abstractly.

    Every PyTorch function that is called while the tracer is active arrives here. Values that depend on the network's
    input or parameters are *abstract*: meta tensors that carry a :class:`Value`. Anything else (masks, position
    counters) is computed as usual. Nothing that belongs to the network is written to.

    The network's parameters and buffers are made known with :meth:`adopt`.

    Args:
        chooses: Whether choices that depend on activations take all elements, or none.
    """

    def __init__(self, chooses: bool = True) -> None:
        super().__init__()
        self.chooses = chooses
        self.chose = False
        self.conditions: dict[str, int] = {}  # how often each module asked whether an activation is true
        self.reasons: dict[str, str] = {}  # why parameters are not predicted, where that is known beforehand
        # Steps that may make up a norm (see norms.py): with its type and dimensions, or with the gain that came first.
        self.statistics: dict[int, tuple[str, tuple[int, ...]]] = {}
        self.normalised: dict[int, tuple[str, tuple[int, ...]]] = {}
        self.gains: dict[int, Tensor] = {}
        self.biased: dict[int, Sources] = {}  # sums of scores of attention and biases, with the scores
        self.looked_up: set[str] = set()  # matrices of which rows are taken by their numbers

    # --- steps -----------------------------------------------------------------------------------------------------

    def chosen(self, count: int) -> int:
        """How many of ``count`` elements a choice takes that depends on activations: all or none."""
        self.chose = True
        return count if self.chooses else 0

    def ask(self) -> None:
        """Counts what the module that runs asks of values: a loop that waits for an answer would never end."""
        asked = self.conditions[self.scope[-1]] = self.conditions.get(self.scope[-1], 0) + 1
        if asked > _QUESTIONS:
            self.chose = False  # a second try would leave the loop out
            raise RuntimeError("a loop waits for a value, which meta tensors do not have")

    # --- interception ----------------------------------------------------------------------------------------------

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Called by PyTorch for every function on tensors while the tracer is active."""
        kwargs = kwargs or {}
        if func in QUERIES:
            return func(*args, **kwargs)
        result = self._interpreted(func, args, kwargs)
        follow(self, func, args, kwargs, result)
        return result

    def _interpreted(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a function's rule makes of it, where it has one."""
        handler = RULES.get(func if type(func) is not OpOverloadPacket else str(func))
        if handler is not None and any(map(self.is_abstract, tensors_in((args, kwargs)))):
            if kwargs:
                kwargs = {ALIASES.get(name, name): value for name, value in kwargs.items()}
            if (out := kwargs.pop("out", None)) is None:
                return handler(self, *args, **kwargs)
            if not self.owns(out):
                self.mark(out, self.value(handler(self, *args, **kwargs)) or CONSTANT)
            return out
        return self.default(func, args, kwargs)

    def call(self, func: Callable[..., Any], *args: Any) -> Any:
        """What ``func`` gives in the trace, for rules that come down to another function."""
        return self.__torch_function__(func, (), args)

    def default(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A function without a rule: computed where all values are known, else run for its shape and folded away."""
        name = getattr(func, "__name__", "")
        if name == "__get__":
            return self._attribute(func, args)
        if name == "__set__":
            return None if id(args[0]) in self._owned else func(*args)
        if "device" in kwargs:
            if str(kwargs["device"]) == "meta":  # asked for without data
                return func(*args, **kwargs)
            kwargs = {name: value for name, value in kwargs.items() if name != "device"}
        tensors = list(tensors_in((args, kwargs)))
        if not tensors and func in FACTORIES:
            if func is torch.rand:
                self.ask()
            return made(func, args, kwargs)
        writes = func in IN_PLACE or (name.endswith("_") and not name.endswith("__"))
        if tensors and (writes or kwargs.get("out") is not None):
            return self._in_place(func, args, kwargs, tensors)
        if not any(map(self.is_abstract, tensors)):
            return self._compute(func, args, kwargs, tensors)
        merged = self.merged(tensors)
        if merged.sources:
            merged = Value(self.fold(merged.params, _reason(func), merged.sources))
        result = func(*map_tensors(self.lift, args), **map_tensors(self.lift, kwargs))
        return map_tensors(lambda tensor: self.tag(tensor, args[0] if args else None, merged), result)

    def _attribute(self, func: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Attributes that are tensors, such as ``.data`` and ``.T``, come from where their tensor comes from."""
        result = func(*args)
        if not isinstance(result, Tensor):
            return placed(func, result)
        value = self.value(args[0])
        if value is None:
            return result
        return self.tag(result, args[0], value) if result.is_meta else self.remember(result, value)

    def _compute(self, func: Callable[..., Any], args: Any, kwargs: Any, tensors: list[Tensor]) -> Any:
        """Values that are at hand are computed as usual, and remember where they come from."""
        if func in ARRAYS and self.owns(tensors[0]):
            return func(tensors[0].clone(), *args[1:], **kwargs)
        merged = self.merged(tensors)
        result = computed(func, args, kwargs, tensors)
        if merged != CONSTANT:
            for tensor in tensors_in([result]):
                self.remember(tensor, merged)
        return result

    def _in_place(self, func: Callable[..., Any], args: Any, kwargs: Any, tensors: list[Tensor]) -> Any:
        """Writes into abstract tensors and into what the trace made itself, never into what the network owns."""
        out = kwargs.get("out")
        target = out if out is not None else args[0] if args else tensors[0]
        targets = list(tensors_in([target]))
        if any(map(self.owns, targets)):
            return target
        if not any(map(self.is_abstract, tensors)):
            return self._compute(func, args, kwargs, tensors)
        sources = [tensor for tensor in tensors if out is None or not any(tensor is written for written in targets)]
        merged = self.merged(sources)
        entering = self.fold(merged.params if merged.sources else (), _reason(func), merged.sources)
        if all(tensor.is_meta for tensor in targets):
            func(*map_tensors(self.lift, args), **map_tensors(self.lift, kwargs))
        for tensor in targets:
            self.mark(tensor, Value(entering, () if entering else merged.params))
        return target
