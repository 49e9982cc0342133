"""Intercepts every PyTorch function of a forward pass and applies its rule; ``rules/`` holds the rules."""

from __future__ import annotations

import functools
import os
import pickle
import re
import sys
from collections.abc import Callable
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..utils.compat import OPERATORS, TorchDispatchMode, operator_name, without_dispatch
from ..utils.nested_tensors import map_tensors, tensors_in
from . import other_layouts
from .assumptions import CONDITIONS, Assumptions, Site, own_generator
from .constant_tensors import DRAWING, FACTORIES, NOISE, RANDOM, computed, created, drawn, on_cpu, seeded
from .kept_reasons import kept_by
from .recorder import Recorder
from .steps import Sources
from .values import CONSTANT, Value
from .weight_functions import FOLLOWERS

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
                 "element_size", "get_device", "__len__", "__hash__", "__repr__", "__str__", "data_ptr")
)  # fmt: skip
_DATA: Final = Tensor.data.__get__  # type: ignore[attr-defined]
_SET_DATA: Final = Tensor.data.__set__  # type: ignore[attr-defined]
_GRAD: Final = Tensor.grad.__get__  # type: ignore[union-attr]
_REQUIRES_GRAD: Final = Tensor.requires_grad.__get__  # type: ignore[attr-defined]
_SET_REQUIRES_GRAD: Final = Tensor.requires_grad.__set__  # type: ignore[attr-defined]
_ARRAYS: Final[frozenset[Any]] = frozenset((Tensor.numpy, Tensor.__array__))
# NumPy's names of arguments, which PyTorch accepts too, and PyTorch's own for the second operand of a power.
_ALIASES: Final = {
    "axis": "dim", "keepdims": "keepdim", "axis0": "dim0", "axis1": "dim1", "x": "input", "exponent": "other",
}  # fmt: skip
_MAX_ASKED: Final = 512
"""How often one line may ask for values before it counts as an infinite loop."""
_MAX_VALUES: Final = 1 << 24
"""How many elements stand-ins with data have at most."""
_NO_VALUES: Final = re.compile(
    r"\b[Mm]eta (tensors?|device|Long|Bool)|register_meta|data-independent|on a meta tensor|fake impl"
)
NOT_THE_NETWORK: Final = (os.path.dirname(torch.__file__), os.path.dirname(__file__))


def asks_for_values(error: BaseException | None) -> bool:
    """Whether a function failed because meta tensors have no values."""
    return isinstance(error, (RuntimeError, TypeError)) and bool(_NO_VALUES.search(str(error)))


def rule(*functions: Callable[..., Any] | str) -> Callable[[Rule], Rule]:
    """Registers the decorated rule for PyTorch functions."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(functions, function))
        return function

    return register


@functools.cache
def python_function(operator: Any) -> Callable[..., Any] | str:
    """The name of an operator if that has a rule, else the Python function of its name and arguments, or itself."""
    full = operator_name(operator)
    namespace, _, name = full.partition(".")
    if full in RULES:
        return full
    spaces = (torch, Tensor, F, torch.special, getattr(torch._C, "_nn", None)) if namespace == "aten" else ()
    functions = [getattr(space, name) for space in spaces if hasattr(space, name)]
    known = [function for function in functions if function in RULES or function in FOLLOWERS]
    return (*known, *functions, operator)[0]


class OperatorTracer(TorchDispatchMode):
    """Hands operators that run without a Python function, as those of TorchScript do, to the tracer."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Called by PyTorch for every such operator; calling it from Python reaches the tracer."""
        types_of = (str(argument.type) for argument in func._schema.arguments)
        given = (  # a tensor that was made of a number comes as the number
            torch.tensor(value) if isinstance(value, (int, float)) and kind == "Tensor" else value
            for value, kind in zip(args, types_of, strict=False)
        )
        return func(*given, **(kwargs or {}))


class Tracer(Recorder, TorchFunctionMode):
    """Interprets a forward pass abstractly.

    While the tracer is active, PyTorch calls it for every function. A function with a rule is interpreted by it. Any
    other runs on meta tensors for the shape of its result. Masks and position counters are computed as usual. Nothing
    that belongs to the network is written to.

    Args:
        assumed: What the trace assumes where the forward pass asks for values.
    """

    def __init__(self, assumed: Assumptions) -> None:
        super().__init__()
        self.assumed = assumed
        self.chose = False  # whether a choice of elements depends on activations
        self.drew = assumed.fixed  # whether the forward pass drew random numbers
        # Of random numbers without a generator of their own, and copies of the network's own with their first state
        self.generator = torch.Generator().manual_seed(assumed.seed or 0)
        self.own_generators: list[tuple[Any, bytes]] = []
        self.asked: dict[Site, int] = {}  # how often a line asked for a condition on activations
        self.draws: dict[Site, int] = {}  # how often a line drew a random number
        self.reasons: dict[str, str] = {}  # why parameters are kept, where that is known without a trace
        # Steps that may be part of a handwritten norm: with its type and dimensions, or with a gain before the division
        self.statistics: dict[int, tuple[str, tuple[int, ...]]] = {}
        self.normalised: dict[int, tuple[str, tuple[int, ...]]] = {}
        self.gains: dict[int, Tensor] = {}
        self.takes_gradients = False  # whether the forward pass has asked for gradients
        self.differentiated: Sources | None = None  # the sources of what the forward pass called ``backward`` on
        self.biased: dict[int, Sources] = {}  # sums of attention scores and biases, with the scores
        self.tables: dict[int, list[int]] = {}  # products that may be attention scores, with what is added to them
        self.looked_up: set[str] = set()  # matrices whose rows are looked up

    def chosen(self, count: int) -> int:
        """How many of ``count`` elements a choice takes that depends on activations: all or none."""
        self.chose = True
        return count if self.assumed.all_chosen else 0

    def holds(self) -> bool:
        """Whether a condition on activations holds."""
        site = self._count(self.asked)
        return CONDITIONS[self.assumed.conditions](self.asked[site]) != (site in self.assumed.flipped)

    def draw(self) -> None:
        """Notes that a number is drawn that may decide something."""
        self.drew = True
        self._count(self.draws)

    def own_generator(self, generator: Any) -> Any:
        """A copy of a generator of the network."""
        copied = own_generator(self.assumed, generator)
        self.own_generators.append((copied, pickle.dumps(copied)))
        return copied

    @property
    def drew_from_own(self) -> bool:
        """Whether the forward pass drew from the network's own generators."""
        return any(pickle.dumps(copied) != first for copied, first in self.own_generators)

    def _count(self, counts: dict[Site, int]) -> Site:
        """Counts how often a line asks for values, as a loop that waits for an answer would never end."""
        frame = sys._getframe()
        while frame.f_back is not None and frame.f_code.co_filename.startswith(NOT_THE_NETWORK):
            frame = frame.f_back
        site = (self.scope[-1], frame.f_code.co_filename, frame.f_lineno)
        counts[site] = counts.get(site, 0) + 1
        if counts[site] > _MAX_ASKED:
            raise RuntimeError("a loop waits for a value, which meta tensors do not have")
        return site

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Called by PyTorch for every function while the tracer is active."""
        kwargs = kwargs or {}
        if func in _QUERIES:
            return func(*args, **kwargs)
        if (self.has_layouts or func in other_layouts.MAKERS) and other_layouts.concerns(self, func, args, kwargs):
            return other_layouts.interpret(self, self.__torch_function__, func, args, kwargs)
        if getattr(func, "__name__", "") == "__get__" and func not in FOLLOWERS:  # most attributes run no operator
            return self._attribute(func, args)
        with without_dispatch():
            if func not in RULES and isinstance(func, OPERATORS):
                return self._operator(func, args, kwargs)
            result = self._interpreted(func, args, kwargs)
            if args and (follower := FOLLOWERS.get(func)) is not None:
                follower(self, func, args, kwargs, result)
        return result

    def _operator(self, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of an operator, by its own rule or as the Python function of the same name."""
        function = python_function(operator)
        if isinstance(function, str) and any(map(self.is_abstract, tensors_in((args, kwargs)))):
            return RULES[function](self, *args, **kwargs)
        if isinstance(function, str) or function is operator:
            return self.default(operator, args, kwargs)
        return self.call(function, *args, **kwargs)

    def _interpreted(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result by the function's rule, where there is one and an argument is abstract."""
        handler = RULES.get(func)
        first = args[0] if args else None  # is nearly always abstract
        if handler is None or not (
            (isinstance(first, Tensor) and first.is_meta) or any(map(self.is_abstract, tensors_in((args, kwargs))))
        ):
            return self.default(func, args, kwargs)
        if not _ALIASES.keys().isdisjoint(kwargs):
            kwargs = {_ALIASES.get(name, name): value for name, value in kwargs.items()}
        if (out := kwargs.pop("out", None)) is None:
            return handler(self, *args, **kwargs)
        if not self.is_weight(out):
            self.mark(out, self.value(handler(self, *args, **kwargs)) or CONSTANT)
        return out

    def call(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The result of ``func`` in the trace, for rules that reduce to another function."""
        return self.__torch_function__(func, (), args, kwargs)

    def default(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A function without a rule: computed if all arguments have data, else run for its shape and folded away."""
        name = getattr(func, "__name__", "").partition(".")[0]  # of an operator without its overload
        if name == "__get__":
            return self._attribute(func, args)
        if func == _SET_DATA and id(args[0]) not in self.owned and self.is_abstract(args[1]):
            if args[0].is_meta:  # others keep their shape
                func(args[0], self.lift(args[1]))
            return self.mark(args[0], self.value(args[1]) or CONSTANT)
        if name == "__set__":
            kept = id(args[0]) in self.owned or func == _SET_REQUIRES_GRAD  # of activations that no gradient reaches
            return None if kept else func(*args)
        if name == "_set_grad_enabled":
            self.takes_gradients |= args[0]
        if "device" in kwargs:
            if str(kwargs["device"]) == "meta":  # the network asks for a tensor without data
                return func(*args, **kwargs)
            kwargs = {name: value for name, value in kwargs.items() if name != "device"}
        tensors = list(tensors_in((args, kwargs)))
        if not tensors and func in FACTORIES:
            if func in RANDOM:
                self.draw()
            return created(func, args, seeded(func, kwargs, self.generator), self.assumed.number)
        writes = func in _IN_PLACE or (name.endswith("_") and not name.endswith("__"))
        if tensors and (writes or kwargs.get("out") is not None):
            return self._in_place(func, args, kwargs, tensors)
        if not any(map(self.is_abstract, tensors)):
            return self._compute(func, args, kwargs, tensors)
        merged = self.merged(tensors)
        if merged.sources:
            merged = Value(self.fold(merged.params, kept_by(func), merged.sources))
        result = self.shaped(func, args, kwargs)
        return map_tensors(lambda tensor: self.tag(tensor, args[0] if args else None, merged), result)

    def shaped(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of a function without data; where that needs values, of random values without the trace."""
        try:
            return func(*map_tensors(self.lift, args), **map_tensors(self.lift, kwargs))
        except (NotImplementedError, RuntimeError) as error:
            if not asks_for_values(error) or sum(tensor.numel() for tensor in tensors_in((args, kwargs))) > _MAX_VALUES:
                raise
            given = map_tensors(self.stand_in, (args, kwargs))
            try:
                result = func(*given[0], **given[1])
            except Exception:  # noqa: BLE001  # such values make no sense to it
                raise error from None
            if next(tensors_in([result]), None) is None:  # values themselves
                raise
            return map_tensors(lambda tensor: torch.empty_like(tensor, device="meta"), result)

    def stand_in(self, tensor: Tensor) -> Tensor:
        """A tensor with data: random fractions, or zeros for integers, where the trace has none."""
        if not self.is_abstract(tensor):
            return tensor
        if tensor.is_floating_point() or tensor.is_complex():
            generator = torch.Generator().manual_seed(0)  # the network's own random numbers stay as they are
            return torch.rand(tensor.shape, dtype=tensor.dtype, device="cpu", generator=generator)
        return torch.zeros(tensor.shape, dtype=tensor.dtype, device="cpu")

    def _attribute(self, func: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Attributes that are tensors, such as ``.data`` and ``.T``, come from where their tensor comes from."""
        if func == _GRAD and self.differentiated is not None and args[0].is_meta:
            return self.like(args[0], self.differentiated)
        if func == _REQUIRES_GRAD and self.takes_gradients and self.sources(args[0]):
            return True
        result = func(*args)
        if not isinstance(result, Tensor):
            return on_cpu(func, result)
        if func == _DATA and self.is_abstract(args[0]) and args[0].is_meta:
            return self.view(args[0], args[0].shape)
        if (value := self.value(args[0])) is None:
            return result
        return self.tag(result, args[0], value) if result.is_meta else self.remember(result, value)

    def _compute(self, func: Callable[..., Any], args: Any, kwargs: Any, tensors: list[Tensor]) -> Any:
        """Computes a function of tensors with data, and notes where these come from."""
        if func in _ARRAYS and self.owns(tensors[0]):  # what is written into the array must not reach the network
            return func(tensors[0].clone(), *args[1:], **kwargs)
        if func in DRAWING and (result := drawn(func, args, kwargs, self.assumed.number)) is not None:
            self.draw()
            return result
        if func in NOISE:
            return args[0].clone()
        merged = self.merged(tensors)
        result = computed(func, args, seeded(func, kwargs, self.generator), tensors)
        if merged != CONSTANT:
            for tensor in tensors_in([result]):
                self.remember(tensor, merged)
        return result

    def _in_place(self, func: Callable[..., Any], args: Any, kwargs: Any, tensors: list[Tensor]) -> Any:
        """Writes into abstract tensors and into tensors of the trace; of what the network owns, buffers are marked."""
        out = kwargs.get("out")
        target = out if out is not None else args[0] if args else tensors[0]
        targets = list(tensors_in([target]))
        owned = any(map(self.owns, targets))
        if not any(map(self.is_abstract, tensors)):
            return target if owned else self._compute(func, args, kwargs, tensors)
        read = [tensor for tensor in tensors if out is None or not any(tensor is written for written in targets)]
        merged = self.merged(read)
        sources = self.fold(merged.params if merged.sources else (), kept_by(func), merged.sources)
        if owned and (any(map(self.is_weight, targets)) or not sources):
            return target
        if not owned and all(tensor.is_meta for tensor in targets):
            func(*map_tensors(self.lift, args), **map_tensors(self.lift, kwargs))
        for tensor in targets:
            self.mark(tensor, Value(sources, () if sources else merged.params))
        return target
