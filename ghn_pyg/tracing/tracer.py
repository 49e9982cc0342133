"""Runs a network's forward pass on tensors without data and records the steps that may become nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch._ops import OpOverloadPacket
from torch.overrides import TorchFunctionMode

from ..utils.nested_tensors import map_tensors, tensors_in
from .constants import FACTORIES, computed, made, placed
from .functions import ALIASES, ARRAYS, IN_PLACE, QUERIES
from .kept import Kept, enters
from .recorder import Recorder
from .steps import Sources, union
from .weight_parts import follow

Rule = Callable[..., Any]
"""``rule(tracer, *args, **kwargs)``: what a PyTorch function does to abstract tensors."""

RULES: Final[dict[Callable[..., Any] | str, Rule]] = {}
"""PyTorch function, or name of an extension's operator → rule; what has none is run for its shape and folded away."""


class Value(NamedTuple):
    """Where an abstract tensor comes from: steps, and parameters that no step has taken up yet."""

    sources: Sources = ()
    params: tuple[str, ...] = ()


CONSTANT: Final = Value()
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


def _behind(tensor: Tensor) -> Tensor | None:
    """The tensor that a function transform wraps, or that ``tensor`` is a view of."""
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return torch._C._functorch.get_unwrapped(tensor)
    return tensor._base


def _reason(func: Callable[..., Any]) -> str:
    """Why a parameter is kept that enters a function without a rule."""
    return _REASONS.get(func) or enters(getattr(func, "__name__", "a function"))


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


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
        self.tied: dict[str, str] = {}
        self.reasons: dict[str, str] = {}  # why parameters are not predicted, where that is known beforehand
        # Steps that may make up a norm (see norms.py): with its type and dimensions, or with the gain that came first.
        self.statistics: dict[int, tuple[str, tuple[int, ...]]] = {}
        self.normalised: dict[int, tuple[str, tuple[int, ...]]] = {}
        self.gains: dict[int, Tensor] = {}
        self.met: set[str] = set()  # parameters that a function took
        self.biased: dict[int, Sources] = {}  # sums of scores of attention and biases, with the scores
        self.looked_up: set[str] = set()  # matrices of which rows are taken by their numbers
        self._names: dict[int, str] = {}
        self._owned: set[int] = set()
        self._tensors: list[Tensor] = []
        self._memory: set[int] | None = None
        self._stale: set[int] = set()
        # A real tensor may get a provenance too (a mask that an activation was written into). It is kept beside the
        # tensor, never on it, and with the tensor, so that its id stays taken.
        self._marked: dict[int, tuple[Tensor, Value]] = {}

    def adopt(
        self, path: str, parameters: Mapping[str, nn.Parameter | None], buffers: Mapping[str, Tensor | None]
    ) -> None:
        """Makes a module's own parameters and buffers known. A parameter keeps the first name that it is met under."""
        for short, parameter in parameters.items():
            if parameter is None:
                continue
            name = f"{path}.{short}" if path else short
            first = self._names.setdefault(id(parameter), name)
            if first == name:
                self.parameters[name] = parameter
                self._own(parameter)
            else:
                self.tied[name] = first
        for buffer in buffers.values():
            if buffer is not None:
                self._own(buffer)

    def owned(self) -> list[Tensor]:
        """The network's parameters and buffers."""
        return self._tensors

    def _own(self, tensor: Tensor) -> None:
        self._owned.add(id(tensor))
        self._tensors.append(tensor)

    def alias(self, path: str, module: nn.Module) -> None:
        """Notes the further names that the parameters of a module have where it is met again."""
        for name, parameter in module.named_parameters(path):
            self.tied.setdefault(name, self._names[id(parameter)])

    # --- abstract values -------------------------------------------------------------------------------------------

    def value(self, tensor: Tensor) -> Value | None:
        """Where ``tensor`` comes from; ``None`` when it is a plain constant."""
        known: Value | None = getattr(tensor, "_ghn_value", None)
        if known is not None:
            viewed = getattr(tensor, "_ghn_viewed", None)
            return known if viewed is None else self._written(known, *viewed)
        if (name := self._names.get(id(tensor))) is not None:
            self.met.add(name)
            return Value((), (name,))
        if (marked := self._marked.get(id(tensor))) is not None:
            return marked[1]
        if (base := _behind(tensor)) is not None:
            return self.value(base)
        return CONSTANT if tensor.is_meta else None

    def _written(self, known: Value, base: Tensor, before: Value | None) -> Value:
        """Where a view comes from, after what was written into its base since."""
        now = self.value(base)
        if now is None or now == before:
            return known
        return now if known == before else Value(union(known.sources, now.sources), known.params)

    def is_abstract(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` has no values that the trace may look at: it has no data, or is a parameter."""
        if tensor.is_meta or id(tensor) in self._names:
            return True
        if self._stale and tensor._base is not None and id(tensor._base) in self._stale:
            return True
        marked = self._marked.get(id(tensor))
        return marked is not None and bool(marked[1].params or id(tensor) in self._stale)

    def sources(self, tensor: Any) -> Sources:
        """The steps that ``tensor`` is computed from directly; none for anything that is not an abstract tensor."""
        value = self.value(tensor) if isinstance(tensor, Tensor) else None
        return value.sources if value else ()

    def emit(self, shape: Sequence[int], dtype: torch.dtype, value: Value) -> Tensor:
        """A new abstract tensor."""
        tensor = torch.empty(shape, dtype=dtype, device="meta")
        tensor._ghn_value = value  # type: ignore[attr-defined]
        return tensor

    def like(self, tensor: Tensor, sources: Sources) -> Tensor:
        """A new abstract tensor of the same shape and type, computed from ``sources``."""
        return self.emit(tensor.shape, tensor.dtype, Value(sources))

    def view(self, base: Tensor, shape: Sequence[int]) -> Tensor:
        """An abstract tensor that shares ``base``'s memory: what is written into it is written into ``base``."""
        value = self.value(base)
        tensor = self.emit(shape, base.dtype, value or CONSTANT)
        tensor._ghn_viewed = (base, value)  # type: ignore[attr-defined]
        for mark in ("_ghn_open", "_ghn_added"):
            if (noted := getattr(base, mark, None)) is not None:
                setattr(tensor, mark, noted)
        return tensor

    def opened(self, tensor: Tensor) -> Tensor:
        """Notes that ``tensor`` is what a layer or norm gives that may still get its bias."""
        if len(sources := self.sources(tensor)) == 1:
            tensor._ghn_open = sources[0]  # type: ignore[attr-defined]
        return tensor

    def mark(self, tensor: Tensor, value: Value) -> None:
        """Sets where ``tensor`` and the tensor that it is a view of come from, after an in-place operation."""
        target: Tensor | None = tensor
        while target is not None and id(target) not in self._owned:
            base: Tensor | None = getattr(target, "_ghn_viewed", (target._base,))[0]
            if target.is_meta:
                target._ghn_value = value  # type: ignore[attr-defined]
                if base is not None:  # what the network owns stays as it is
                    before = self.value(base) if id(base) in self._owned else value
                    target._ghn_viewed = (base, before)  # type: ignore[attr-defined]
            else:  # it has values still, but not those that the network would write
                self._marked[id(target)] = (target, value)
                self._stale.add(id(target))
            target = base

    def remember(self, tensor: Tensor, value: Value) -> Tensor:
        """Notes where a tensor with values comes from."""
        self._marked[id(tensor)] = (tensor, value)
        return tensor

    def merged(self, tensors: Iterable[Tensor]) -> Value:
        """The joint provenance of several tensors."""
        tensors = list(tensors)
        values = [value for tensor in tensors if (value := self.value(tensor)) is not None]
        params = tuple(dict.fromkeys(name for value in values for name in value.params))
        entering = self.entering(tensors) if self._marked else (value.sources for value in values)
        return Value(union(*entering), params)

    def entering(self, operands: Sequence[Any]) -> list[Sources]:
        """The sources of each operand; ids and masks, which have values, give none where an activation has some."""
        found = [self.sources(operand) for operand in operands]
        if self._marked and any(map(self._is_activation, operands)):
            return [s if self._is_activation(operand) else () for operand, s in zip(operands, found, strict=True)]
        return found

    def _is_activation(self, operand: Any) -> bool:
        return isinstance(operand, Tensor) and self.is_abstract(operand) and bool(self.sources(operand))

    # --- steps -----------------------------------------------------------------------------------------------------

    def kinds(self, tensor: Any) -> set[str]:
        """The kinds of the steps that ``tensor`` is computed from directly."""
        return {self.steps[step].kind for step in self.sources(tensor)}

    def chosen(self, count: int) -> int:
        """How many of ``count`` elements a choice takes that depends on activations: all or none."""
        self.chose = True
        return count if self.chooses else 0

    def own_name(self, tensor: Tensor) -> str | None:
        """The name of a tensor that is a parameter itself."""
        return self._names.get(id(tensor))

    def ask(self) -> None:
        """Counts what the module that runs asks of values: a loop that waits for an answer would never end."""
        asked = self.conditions[self.scope[-1]] = self.conditions.get(self.scope[-1], 0) + 1
        if asked > _QUESTIONS:
            self.chose = False  # a second try would leave the loop out
            raise RuntimeError("a loop waits for a value, which meta tensors do not have")

    def parameter(self, tensor: Tensor | None) -> str | None:
        """The parameter that ``tensor`` is, or is computed from alone: of several, one of its shape or the largest."""
        if tensor is None:
            return None
        value = self.value(tensor)
        if value is None or not value.params or value.sources:
            return None
        if len(value.params) == 1:
            return value.params[0]
        same = [name for name in value.params if self.parameters[name].shape == tensor.shape]
        return (same or sorted(value.params, key=lambda name: -self.parameters[name].numel()))[0]

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
        if result.is_meta:
            return self.tag(result, args[0], value)
        self._marked[id(result)] = (result, value)
        return result

    def _compute(self, func: Callable[..., Any], args: Any, kwargs: Any, tensors: list[Tensor]) -> Any:
        """Values that are at hand are computed as usual, and remember where they come from."""
        if func in ARRAYS and self.owns(tensors[0]):
            return func(tensors[0].clone(), *args[1:], **kwargs)
        merged = self.merged(tensors)
        result = computed(func, args, kwargs, tensors)
        if merged != CONSTANT:
            for tensor in tensors_in([result]):
                self._marked[id(tensor)] = (tensor, merged)
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

    def owns(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` is a parameter or buffer of the network, or shares the memory of one."""
        if id(tensor) in self._owned:
            return True
        if tensor.is_meta:
            return False
        if self._memory is None:
            self._memory = {_address(owned) for owned in self._tensors if not owned.is_meta}
        return _address(tensor) in self._memory

    def lift(self, tensor: Tensor) -> Tensor:
        """A stand-in without data for a real tensor; a single integer may be a size, whose value counts."""
        if tensor.is_meta or (tensor.dim() == 0 and tensor.dtype == torch.int64 and not self.is_abstract(tensor)):
            return tensor
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")

    def tag(self, result: Tensor, first: Any, value: Value) -> Tensor:
        """Notes where the result of a function comes from, and which tensor it is a view of."""
        if result is first:
            return result
        result._ghn_value = value  # type: ignore[attr-defined]
        if result._base is not None and isinstance(first, Tensor):
            result._ghn_viewed = (first, self.value(first))  # type: ignore[attr-defined]
        return result
