"""Intercepts every PyTorch function of a forward pass and applies its rule; ``rules/`` holds the rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..utils.compat import OpOverloadPacket
from ..utils.nested_tensors import map_tensors, tensors_in
from .constant_tensors import FACTORIES, computed, created, on_cpu
from .kept_reasons import kept_by
from .recorder import Recorder
from .steps import Sources
from .values import CONSTANT, Value
from .weight_parts import FOLLOWERS

Rule = Callable[..., Any]
"""``rule(tracer, *args, **kwargs)``: what a PyTorch function does to abstract tensors."""

RULES: Final[dict[Callable[..., Any] | str, Rule]] = {}
"""PyTorch function, or name of an extension's operator → rule. Others run for their shape and are folded away."""

_IN_PLACE: Final = frozenset(
    getattr(Tensor, f"__{name}__")
    for name in ("setitem", "iadd", "isub", "imul", "itruediv", "iand", "ior", "ixor", "ifloordiv", "ipow")
    if hasattr(Tensor, f"__{name}__")
)
_QUERIES: Final = frozenset(
    getattr(Tensor, name)
    for name in ("dim", "size", "numel", "stride", "is_contiguous", "is_floating_point", "is_complex", "ndimension",
                 "element_size", "get_device", "__len__", "__hash__", "__repr__", "__str__", "__format__", "data_ptr")
)  # fmt: skip
_ARRAYS: Final[frozenset[Any]] = frozenset((Tensor.numpy, Tensor.__array__))
# NumPy's names of arguments, which PyTorch accepts too, and PyTorch's own for the second operand of a power.
_ALIASES: Final = {
    "axis": "dim", "keepdims": "keepdim", "axis0": "dim0", "axis1": "dim1", "x": "input", "exponent": "other",
}  # fmt: skip
_MAX_CONDITIONS: Final = 1024
"""How often one module may ask for values before it counts as an infinite loop."""


def rule(*functions: Callable[..., Any] | str) -> Callable[[Rule], Rule]:
    """Registers the decorated rule for PyTorch functions."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(functions, function))
        return function

    return register


class Tracer(Recorder, TorchFunctionMode):
    """Interprets a forward pass abstractly.

    While the tracer is active, PyTorch calls it for every function. A function with a rule is interpreted by it. Any
    other runs on meta tensors for the shape of its result. Masks and position counters are computed as usual. Nothing
    that belongs to the network is written to.

    Args:
        chooses: Whether choices that depend on activations take all elements, or none.
    """

    def __init__(self, chooses: bool = True) -> None:
        super().__init__()
        self.chooses = chooses
        self.chose = False  # whether there was such a choice
        self.conditions: dict[str, int] = {}  # how often each module asked whether an activation is true
        self.reasons: dict[str, str] = {}  # why parameters are kept, where that is known without a trace
        # Steps that may be part of a handwritten norm: with its type and dimensions, or with a gain before the division
        self.statistics: dict[int, tuple[str, tuple[int, ...]]] = {}
        self.normalised: dict[int, tuple[str, tuple[int, ...]]] = {}
        self.gains: dict[int, Tensor] = {}
        self.biased: dict[int, Sources] = {}  # sums of attention scores and biases, with the scores
        self.tables: dict[int, list[int]] = {}  # products that may be attention scores, with what is added to them
        self.looked_up: set[str] = set()  # matrices whose rows are looked up

    def chosen(self, count: int) -> int:
        """How many of ``count`` elements a choice takes that depends on activations: all or none."""
        self.chose = True
        return count if self.chooses else 0

    def ask(self) -> None:
        """Counts how often the running module asks for values, as a loop that waits for an answer would never end."""
        asked = self.conditions[self.scope[-1]] = self.conditions.get(self.scope[-1], 0) + 1
        if asked > _MAX_CONDITIONS:
            self.chose = False  # a second try would skip the loop
            raise RuntimeError("a loop waits for a value, which meta tensors do not have")

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Called by PyTorch for every function while the tracer is active."""
        kwargs = kwargs or {}
        if func in _QUERIES:
            return func(*args, **kwargs)
        result = self._interpreted(func, args, kwargs)
        if args and (follower := FOLLOWERS.get(func)) is not None:
            follower(self, func, args, kwargs, result)
        return result

    def _interpreted(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result by the function's rule, where there is one and an argument is abstract."""
        handler = RULES.get(func if type(func) is not OpOverloadPacket else str(func))
        if handler is None or not any(map(self.is_abstract, tensors_in((args, kwargs)))):
            return self.default(func, args, kwargs)
        if kwargs:
            kwargs = {_ALIASES.get(name, name): value for name, value in kwargs.items()}
        if (out := kwargs.pop("out", None)) is None:
            return handler(self, *args, **kwargs)
        if not self.owns(out):
            self.mark(out, self.value(handler(self, *args, **kwargs)) or CONSTANT)
        return out

    def call(self, func: Callable[..., Any], *args: Any) -> Any:
        """The result of ``func`` in the trace, for rules that reduce to another function."""
        return self.__torch_function__(func, (), args)

    def default(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A function without a rule: computed if all arguments have data, else run for its shape and folded away."""
        name = getattr(func, "__name__", "")
        if name == "__get__":
            return self._attribute(func, args)
        if name == "__set__":
            return None if id(args[0]) in self.owned else func(*args)
        if "device" in kwargs:
            if str(kwargs["device"]) == "meta":  # the network asks for a tensor without data
                return func(*args, **kwargs)
            kwargs = {name: value for name, value in kwargs.items() if name != "device"}
        tensors = list(tensors_in((args, kwargs)))
        if not tensors and func in FACTORIES:
            if func is torch.rand:
                self.ask()
            return created(func, args, kwargs)
        writes = func in _IN_PLACE or (name.endswith("_") and not name.endswith("__"))
        if tensors and (writes or kwargs.get("out") is not None):
            return self._in_place(func, args, kwargs, tensors)
        if not any(map(self.is_abstract, tensors)):
            return self._compute(func, args, kwargs, tensors)
        merged = self.merged(tensors)
        if merged.sources:
            merged = Value(self.fold(merged.params, kept_by(func), merged.sources))
        result = func(*map_tensors(self.lift, args), **map_tensors(self.lift, kwargs))
        return map_tensors(lambda tensor: self.tag(tensor, args[0] if args else None, merged), result)

    def _attribute(self, func: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Attributes that are tensors, such as ``.data`` and ``.T``, come from where their tensor comes from."""
        result = func(*args)
        if not isinstance(result, Tensor):
            return on_cpu(func, result)
        if (value := self.value(args[0])) is None:
            return result
        return self.tag(result, args[0], value) if result.is_meta else self.remember(result, value)

    def _compute(self, func: Callable[..., Any], args: Any, kwargs: Any, tensors: list[Tensor]) -> Any:
        """Computes a function of tensors with data, and notes where these come from."""
        if func in _ARRAYS and self.owns(tensors[0]):  # what is written into the array must not reach the network
            return func(tensors[0].clone(), *args[1:], **kwargs)
        merged = self.merged(tensors)
        result = computed(func, args, kwargs, tensors)
        if merged != CONSTANT:
            for tensor in tensors_in([result]):
                self.remember(tensor, merged)
        return result

    def _in_place(self, func: Callable[..., Any], args: Any, kwargs: Any, tensors: list[Tensor]) -> Any:
        """Writes into abstract tensors and into tensors of the trace, never into what the network owns."""
        out = kwargs.get("out")
        target = out if out is not None else args[0] if args else tensors[0]
        targets = list(tensors_in([target]))
        if any(map(self.owns, targets)):
            return target
        if not any(map(self.is_abstract, tensors)):
            return self._compute(func, args, kwargs, tensors)
        read = [tensor for tensor in tensors if out is None or not any(tensor is written for written in targets)]
        merged = self.merged(read)
        sources = self.fold(merged.params if merged.sources else (), kept_by(func), merged.sources)
        if all(tensor.is_meta for tensor in targets):
            func(*map_tensors(self.lift, args), **map_tensors(self.lift, kwargs))
        for tensor in targets:
            self.mark(tensor, Value(sources, () if sources else merged.params))
        return target
