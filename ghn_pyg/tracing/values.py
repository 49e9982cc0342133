"""Where each tensor of a trace comes from: which recorded steps and which parameters it was computed from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from ..utils.compat import unwrap_functorch
from .steps import Sources, union


class Value(NamedTuple):
    """Where a tensor comes from: steps, and parameters that no step has used yet."""

    sources: Sources = ()
    params: tuple[str, ...] = ()


CONSTANT: Final = Value()


class Origin:
    """What a trace knows about one tensor; what it knows of few tensors stands on the class until it is set."""

    base: Tensor | None = None  # the tensor that it is a view of
    base_value: Value | None = None  # where the base came from when the view was made
    open: Any = None  # the layers or norm without a bias that it is the result of (``rules/open_layers.py``)
    factors: Any = None  # the two factors of a product with a parameter, or what records the layer of a constant
    added: Any = 0  # the number that was added to the parameter that it is made of; None after a subtraction
    tokens: int = 0  # how many learned tokens a concatenation put first
    all_of: tuple[int, ...] | None = None  # if it holds the indices of all elements of a tensor, the tensor's shape
    channels_first: bool = False  # whether it has three dimensions and was a map (B, C, *positions) before
    # The parameters that it is made of as a weight, with its shape and value when that was noted
    parts: tuple[tuple[Any, ...], torch.Size, Value | None] | None = None

    def __init__(self, tensor: Tensor | None, value: Value | None = None) -> None:
        self.tensor = tensor  # kept alive, so that no other tensor gets its id
        self.value = value


_UNKNOWN: Final = Origin(None)
_META: Final = torch.device("meta")


def memory(tensor: Tensor) -> int:
    """The address of a tensor's storage; 0 if it has none, as sparse tensors and those inside of transforms."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):
        return 0


class ValueTable:
    """The origins of all tensors of a trace, kept beside the tensors: the network's own are never written to.

    Tensors that depend on the network's input or parameters are *abstract*: meta tensors with a :class:`Value`. Others
    (masks, position counters) have data, and a value if they are computed from token ids or masks of the input.
    """

    def __init__(self) -> None:
        super().__init__()
        self.parameters: dict[str, nn.Parameter] = {}
        self.tied: dict[str, str] = {}  # further names of shared parameters, with the first one
        self.owned: dict[int, Tensor] = {}  # the network's parameters and buffers by id
        self.met: set[str] = set()  # parameters that some function took
        self.scaling: set[str] = set()  # parameters that scale a weight
        self._origins: dict[int, Origin] = {}
        self._names: dict[int, str] = {}
        self._memory: dict[int, bool] = {}  # what the network owns: whether it is that of a parameter
        # Memory with data that something without data was written to, with a tensor that keeps it alive
        self._written: dict[int, tuple[Value, Tensor]] = {}
        self._data_with_sources = False
        self._marked = False  # whether anything was written to

    # --- tensors of the network ------------------------------------------------------------------------------------

    def adopt(self, network: nn.Module) -> None:
        """Makes the parameters and buffers of the network known. A shared parameter keeps its first name."""
        waiting = [("", network)]  # named_parameters() and buffers() take a tenth of the time of a trace
        while waiting:
            prefix, module = waiting.pop()
            for short, parameter in module._parameters.items():
                if parameter is None:
                    continue
                first = self._names.setdefault(id(parameter), name := prefix + short)
                if first == name:
                    self.parameters[name] = self.owned[id(parameter)] = parameter
                else:
                    self.tied[name] = first
            for buffer in module._buffers.values():
                if buffer is not None:
                    self.owned[id(buffer)] = buffer
            if module._modules:
                children = [(f"{prefix}{name}.", child) for name, child in module._modules.items() if child is not None]
                waiting += children[::-1]

    def own_name(self, tensor: Tensor) -> str | None:
        """The name of a tensor that is a parameter itself."""
        return self._names.get(id(tensor))

    def owns(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` is a parameter or buffer of the network, or shares the memory of one."""
        if id(tensor) in self.owned:
            return True
        return not tensor.is_meta and memory(tensor) in self._own_memory()

    def is_weight(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` is a parameter of the network, or shares the memory of one."""
        if tensor.is_meta or id(tensor) in self.owned:
            return id(tensor) in self._names
        return self._own_memory().get(memory(tensor), False)

    def _own_memory(self) -> dict[int, bool]:
        if not self._memory:
            own = {memory(tensor): key in self._names for key, tensor in self.owned.items() if not tensor.is_meta}
            self._memory = {address: own[address] for address in own if address} or {0: False}
        return self._memory

    # --- where tensors come from -----------------------------------------------------------------------------------

    def origin(self, tensor: Tensor) -> Origin:
        """The record of ``tensor``, to read and to write."""
        origin = self._origins.get(id(tensor))
        if origin is None:
            origin = self._origins[id(tensor)] = Origin(tensor)
        return origin

    def known(self, tensor: Tensor) -> Origin:
        """The record of ``tensor``, to read only."""
        return self._origins.get(id(tensor), _UNKNOWN)

    def value(self, tensor: Tensor) -> Value | None:
        """Where ``tensor`` comes from; ``None`` when it is a plain constant."""
        if self._written and not tensor.is_meta and (written := self._written.get(memory(tensor))) is not None:
            return written[0]
        origin = self._origins.get(id(tensor))
        if origin is not None and origin.value is not None:
            value = origin.value
            if origin.base is None or not self._marked:
                return value
            now = self.value(origin.base)
            if now is None or now == origin.base_value:
                return value
            # Something was written into the base since.
            return now if value == origin.base_value else Value(union(value.sources, now.sources), value.params)
        if (name := self._names.get(id(tensor))) is not None:
            self.met.add(name)
            return Value((), (name,))
        wrapped = unwrap_functorch(tensor)
        if (base := tensor._base if wrapped is None else wrapped) is not None:
            return self.value(base)
        if isinstance(tensor, nn.Parameter) and tensor.is_meta:
            return self._made_of(tensor)
        return CONSTANT if tensor.is_meta else None

    def _made_of(self, parameter: nn.Parameter) -> Value:
        """Where a parameter comes from that the forward pass made of a tensor, whose memory it has."""
        storage = StorageWeakRef(parameter.untyped_storage())
        values = (
            known.value
            for known in self._origins.values()
            if known.value and known.tensor.is_meta and StorageWeakRef(known.tensor.untyped_storage()) == storage
        )
        value = next(values, CONSTANT)
        self.origin(parameter).value = value
        return value

    def is_abstract(self, tensor: Tensor) -> bool:
        """Whether the trace may not look at the data of ``tensor``: it has none, or is a parameter, or is stale."""
        if tensor.is_meta or id(tensor) in self._names:
            return True
        if self._written and memory(tensor) in self._written:
            return True
        origin = self._origins.get(id(tensor))
        return origin is not None and bool(origin.value and origin.value.params)

    def sources(self, tensor: Any) -> Sources:
        """The steps that ``tensor`` is computed from directly; none for anything that is not an abstract tensor."""
        value = self.value(tensor) if isinstance(tensor, Tensor) else None
        return value.sources if value else ()

    def parameter(self, tensor: Tensor | None) -> str | None:
        """The parameter that ``tensor`` is, or is computed from alone: of several, one of its shape or the largest."""
        if tensor is None or (value := self.value(tensor)) is None or not value.params or value.sources:
            return None
        if len(value.params) == 1:
            return value.params[0]
        parameters = {name: self.parameters[name] for name in value.params}
        return max(parameters, key=lambda name: (parameters[name].shape == tensor.shape, parameters[name].numel()))

    def merged(self, tensors: Iterable[Tensor]) -> Value:
        """The joint value of several tensors."""
        tensors = list(tensors)
        values = [value for tensor in tensors if (value := self.value(tensor)) is not None]
        params = tuple(dict.fromkeys(name for value in values for name in value.params))
        entering = self.entering(tensors) if self._data_with_sources else (value.sources for value in values)
        return Value(union(*entering), params)

    def entering(self, operands: Sequence[Any]) -> list[Sources]:
        """The sources of each operand; token ids and masks, which have data, count only without activations."""
        sources = [self.sources(operand) for operand in operands]
        if self._data_with_sources:
            activations = [bool(own) and self.is_abstract(x) for x, own in zip(operands, sources, strict=True)]
            if any(activations):
                return [own if activation else () for own, activation in zip(sources, activations, strict=True)]
        return sources

    # --- new tensors and writes ------------------------------------------------------------------------------------

    def emit(self, shape: Sequence[int], dtype: torch.dtype, value: Value) -> Tensor:
        """A new abstract tensor."""
        tensor = torch.empty(shape, dtype=dtype, device=_META)
        self._origins[id(tensor)] = Origin(tensor, value)
        return tensor

    def like(self, tensor: Tensor, sources: Sources) -> Tensor:
        """A new abstract tensor of the same shape and type, computed from ``sources``."""
        return self.emit(tensor.shape, tensor.dtype, Value(sources))

    def view(self, base: Tensor, shape: Sequence[int]) -> Tensor:
        """An abstract tensor that shares ``base``'s memory: what is written into it is written into ``base``."""
        known, value = self._origins.get(id(base)), self.value(base)
        tensor = torch.empty(shape, dtype=base.dtype, device=_META)
        origin = self._origins[id(tensor)] = Origin(tensor, value or CONSTANT)
        origin.base, origin.base_value = base, value
        if known is not None:
            origin.open, origin.added = known.open, known.added
        return tensor

    def remember(self, tensor: Tensor, value: Value) -> Tensor:
        """Notes where a tensor with data comes from."""
        self._data_with_sources = True
        self.origin(tensor).value = value
        return tensor

    def tag(self, result: Tensor, first: Any, value: Value) -> Tensor:
        """Notes where a function's result comes from, and that it is a view of its first argument."""
        if result is first:
            return result
        origin = self.origin(result)
        origin.value = value
        if result._base is not None and isinstance(first, Tensor):
            origin.base, origin.base_value = first, self.value(first)
        return result

    def mark(self, tensor: Tensor, value: Value) -> None:
        """Sets where ``tensor`` and the tensors that it is a view of come from, after an in-place operation.

        Nothing is written into the network's buffers, but what follows in the trace reads this from them.
        """
        self._marked = True
        target: Tensor | None = tensor
        while target is not None and id(target) not in self._names:
            origin = self.origin(target)
            base = target._base if origin.base is None else origin.base
            origin.value = value
            if not target.is_meta:
                self._data_with_sources = True
                if address := memory(target):
                    self._written[address] = (value, target)
            elif base is not None:  # parameters stay as they are
                origin.base, origin.base_value = base, self.value(base) if id(base) in self._names else value
            target = base

    def lift(self, tensor: Tensor) -> Tensor:
        """A stand-in without data for a real tensor; a single integer may be a size, whose value counts."""
        if tensor.is_meta or (tensor.dim() == 0 and tensor.dtype == torch.int64 and not self.is_abstract(tensor)):
            return tensor
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
