"""Records where the tensors of a real run come from, by the operators that PyTorch executes.

It knows no layers and shares no rule with the tracer. Each tensor has the nodes of the graph that it is reached from
without passing another node, and the parameters that it is made of as a weight. Tensors that share memory share these.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from ..graph.arch_data import ArchData, ParamSpec
from ..utils.compat import TorchDispatchMode, unwrap_functorch
from ..utils.nested_tensors import tensors_in
from .unfused_operators import onednn

INPUT: Final = 1
"""The bit of the graph's node 0."""

Slice = tuple[int, tuple[tuple[int, int], ...]]
Key = tuple[str, Slice]
"""A parameter and the part of it that is used: the offset, and sizes with strides."""

_PRODUCTS: Final = frozenset(("mm", "addmm", "mv", "addmv", "convolution"))
_BATCHED: Final = frozenset(("bmm", "baddbmm"))
_LOOKUPS: Final = frozenset(("embedding", "_embedding_bag", "index", "index_select", "gather"))
_LAYERS: Final = _PRODUCTS | _BATCHED | {"embedding", "native_layer_norm", "native_batch_norm", "native_group_norm"}
_SCALES: Final = frozenset(("mul", "mul_", "div", "div_"))
_KEEP_WEIGHTS: Final = _SCALES | {"clone", "_to_copy", "_unsafe_view", "repeat", "sum"}
_NORMS: Final = frozenset(("linalg_vector_norm", "norm", "std", "var", "var_mean", "amax", "amin", "max", "min"))
_SUMS: Final = frozenset(("add", "add_", "sub", "sub_", "rsub"))
_SUMS_WITH_PRODUCT: Final = frozenset(("addmm", "baddbmm", "addmv", "addbmm", "addcmul"))
_OVERWRITE: Final = frozenset(("copy_", "fill_", "zero_", "normal_", "uniform_", "bernoulli_", "random_"))

CONSTANT_USE, SCALED_USE, FULL_USE = range(3)
"""How a parameter meets other tensors: constants only, an activation that scales it, or an activation otherwise."""


class Origin(NamedTuple):
    """Where a tensor comes from; sets of nodes are the bits of a number.

    One with ``nodes`` and ``params`` has two readings, of which its next use decides: an activation (a layer applied to
    constants, a position table), or a weight made of parameters.
    """

    nodes: int = 0  # from which it is reached without passing another one
    before: int = 0  # all on which it depends
    params: frozenset[Key] = frozenset()  # that it is made of as a weight
    around: int = 0  # from which the activations that scale this weight are reached


_CONSTANT: Final = Origin()


class RunRecorder(TorchDispatchMode):
    """Records a forward pass: which nodes each node directly depends on.

    Args:
        graph: Says which parameters belong to which node.
        parameters: The network's parameters by the names of the graph.
        buffers: What else must keep its values.
    """

    supports_higher_order_operators = True  # such as flexible attention

    def __init__(self, graph: ArchData, parameters: Mapping[str, Tensor], buffers: Iterable[Tensor]) -> None:
        super().__init__()
        self._count = len(graph.params)
        self.ids = 1 << self._count  # stands for token ids and masks, beside the nodes
        self.spec_of: dict[str, tuple[int, ParamSpec]] = {
            spec.name: (node, spec) for node, specs in enumerate(graph.params) for spec in specs
        }
        self._layer_biases = {n for n, specs in enumerate(graph.params) if all(spec.role == "bias" for spec in specs)}
        self.predecessors: dict[int, list[int | None]] = {}  # of each node that is used, for each kind of use
        self.through_time: dict[int, int] = {}  # what nodes depend on that were used on a constant before
        self.same: dict[int, int] = {}  # the first of the biases that one operator takes together
        self.met: set[str] = set()  # parameters that some operator used
        self.misused: dict[str, str] = {}
        self._uses: dict[Key, int] = {}
        self._most: dict[str, int] = {}  # for each parameter, its use that says most
        self._sliced: set[int] = set()  # nodes of parameters of which several parts are used
        self._kinds: dict[int, set[int]] = {}  # of each node, how it is used by itself or to scale activations
        self._fitting: set[str] = set()  # parameters that some operator uses as the graph says
        self._touched: set[str] = set()
        self._origins: dict[Any, Origin] = {}
        self._joined: dict[Any, list[tuple[int, int, Key]]] = {}  # the parameters in the memory of a concatenation
        self._alive: list[Tensor] = []  # tensors without storage, so that no other one gets their id
        self._owners: dict[Any, list[tuple[int, int, str]]] = {}
        for name, parameter in parameters.items():
            start = int(parameter.storage_offset())
            self._owners.setdefault(self._memory(parameter), []).append((start, start + parameter.numel(), name))
        self._owned = {*self._owners, *map(self._memory, buffers)}
        self._before: dict[Any, tuple[Any, Any]] = {}

    # --- the run -------------------------------------------------------------------------------------------------

    def enter(self, tensor: Tensor) -> None:
        """Makes a tensor an input."""
        bit = INPUT if _is_number(tensor) else self.ids
        self._origins[self._memory(tensor)] = Origin(bit, bit)

    def differentiated(self, outputs: Iterable[Tensor], gradients: Iterable[Tensor]) -> None:
        """Notes that gradients may depend on all that was differentiated, as a graph says, or on part of it."""
        whole = _merged(map(self._origin, map(_innermost, outputs)))
        for gradient in map(_innermost, gradients):
            own = self._origin(gradient)
            origin = Origin(self._perhaps(own.nodes | whole.nodes), own.before | whole.before)
            self._origins[self._memory(gradient)] = origin

    def restore(self) -> None:
        """Gives the network's tensors the values that they had before the run."""
        for storage, values in self._before.values():
            storage.copy_(values)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Called by PyTorch for every operator."""
        kwargs, schema = kwargs or {}, getattr(func, "_schema", None)  # one that calls functions has no schema
        arguments = schema.arguments if schema else ()
        name = func.overloadpacket.__name__ if schema else ""
        slots = [argument.name for argument in arguments] or [""] * len(args)
        named = [*zip(slots, args, strict=False), *kwargs.items()]
        changes = {argument.name for argument in arguments if argument.alias_info and argument.alias_info.is_write}
        written = [tensor for slot, value in named if slot in changes for tensor in tensors_in([value])]
        statistics = "batch_norm" in name or "instance_norm" in name  # their operators do not say that they write
        self._protect(tensors_in((args, kwargs)) if statistics else written)
        operands = []
        self._touched.clear()
        for slot, value in named:
            overwritten = slot in changes and (name in _OVERWRITE or slot not in ("self", "input"))
            read = (tensor for tensor in tensors_in([value]) if not (overwritten and _covers(tensor)))
            operands += [(slot, self._origin(tensor)) for tensor in read]
        with onednn(True) if name == "convolution" else contextlib.nullcontext():
            result = func(*args, **kwargs)
        if name.startswith("new_") or name.endswith("_like"):  # only the shape counts
            return result
        known = {self._memory(tensor) for tensor in tensors_in((args, kwargs))}
        fresh = [tensor for tensor in tensors_in([result]) if self._memory(tensor) not in known]
        if not fresh and not written:  # a view
            return result
        self.met |= self._touched
        origin = self._flow(name, operands)
        chosen = origin._replace(nodes=self._perhaps(origin.nodes), params=frozenset())
        if name == "cat" and (args[1:] or (0,))[0] == 0 and (joined := self._placed(args[0])):
            self._joined[self._memory(result)] = joined
        for tensor in fresh:
            self._origins[self._memory(tensor)] = origin if _is_number(tensor) else chosen
        for tensor in () if statistics else written:
            memory = self._memory(tensor)
            self._joined.pop(memory, None)
            if memory not in self._owners:
                old = _CONSTANT if _covers(tensor) else self._origins.get(memory, _CONSTANT)
                self._origins[memory] = _merged((old, origin))
        return result

    def _memory(self, tensor: Tensor) -> Any:
        """Identifies the memory of a tensor; no later tensor gets the same."""
        try:
            return StorageWeakRef(tensor.untyped_storage())
        except (RuntimeError, NotImplementedError):  # a sparse tensor
            self._alive.append(tensor)
            return id(tensor)

    def _protect(self, tensors: Iterable[Tensor]) -> None:
        """Keeps the values of the network's own tensors before they are written to."""
        for tensor in tensors:
            memory = self._memory(tensor)
            if memory in self._owned and memory not in self._before:
                storage = tensor.untyped_storage()
                self._before[memory] = storage, storage.clone()

    def _origin(self, tensor: Tensor) -> Origin:
        memory = self._memory(tensor)
        if memory not in self._owners:
            for start, stop, (whole, (first, _)) in self._joined.get(memory, ()):
                at, dims = _slice(tensor)
                if start <= at and at + sum((size - 1) * stride for size, stride in dims) < stop:
                    return Origin(params=frozenset(((whole, (first + at - start, dims)),)))
            return self._origins.get(memory, _CONSTANT)
        offset = tensor.storage_offset()
        name = next((name for start, stop, name in self._owners[memory] if start <= offset < stop), None)
        if name is None:
            return _CONSTANT
        self._touched.add(name)
        if name not in self.spec_of:  # it is kept
            return _CONSTANT
        node, spec = self.spec_of[name]
        bit = 1 << node if spec.role == "position" else 0
        return Origin(bit, bit, frozenset(((name, _slice(tensor)),)))

    def _placed(self, tensors: Sequence[Tensor]) -> list[tuple[int, int, Key]]:
        """Where the predicted parameters that are concatenated come to lie; none if there is anything else."""
        placed: list[tuple[int, int, Key]] = []
        for tensor in tensors:
            origin, start = self._origin(tensor), placed[-1][1] if placed else 0
            if origin.nodes or len(origin.params) != 1 or self._memory(tensor) not in self._owners:
                return []
            (key,) = origin.params
            placed.append((start, start + tensor.numel(), key))
        return placed

    # --- nodes -----------------------------------------------------------------------------------------------------

    def _flow(self, name: str, operands: Sequence[tuple[str, Origin]]) -> Origin:
        """Where the result of an operator comes from.

        Parameters become nodes where they meet activations: those of one operator side by side, but biases after the
        rest. What follows a node is reached from it alone.
        """
        beside = any(origin.nodes and not origin.params for _, origin in operands)
        weights, activations = [], []
        for slot, origin in operands:
            weighing = _PRODUCTS | (_BATCHED if self._live(origin) else _LOOKUPS)  # one with two readings
            if origin.params and (not origin.nodes or (beside and name in weighing)):
                weights.append((slot, origin))
            elif origin.nodes:
                activations.append(origin)
        made, entering = _merged(origin for _, origin in weights), _merged(activations)
        self._enter_positions(entering)
        params, live = made.params | entering.params, self._live(entering)
        if not weights:
            keeps = all(origin.params for origin in activations) and not live
            return entering if keeps or name in _KEEP_WEIGHTS else Origin(entering.nodes, entering.before)
        if not activations and name in _NORMS:  # a number is no weight
            return _CONSTANT
        if not activations and not (name in _LAYERS and any(origin == _CONSTANT for _, origin in operands)):
            return Origin(params=params)  # made of parameters alone
        use = CONSTANT_USE
        if live:
            scales = name in _SCALES | _LOOKUPS and all(self.spec_of[key][1].role == "weight" for key, _ in made.params)
            use = SCALED_USE if scales else FULL_USE
        around = entering.nodes | made.around
        nodes = self._use(name, weights, around, entering.before, use)
        before = entering.before | around | _bits(self.spec_of[key][0] for key, _ in made.params)
        return Origin(nodes, before) if use == FULL_USE else Origin(nodes, before, params, around if live else 0)

    def _live(self, origin: Origin) -> bool:
        """Whether a tensor depends on an input of the network."""
        return bool(origin.before & (INPUT | self.ids))

    def _enter_positions(self, entering: Origin) -> None:
        for key in entering.params:
            node, spec = self.spec_of[key[0]]
            if spec.role == "position" and key not in self._uses:
                self._uses[key] = CONSTANT_USE
                self._precede(node, 0, CONSTANT_USE)

    def _use(self, name: str, weights: Iterable[tuple[str, Origin]], around: int, before: int, use: int) -> int:
        """Notes that parameters meet activations; returns the nodes that the result is reached from."""
        layers: dict[int, bool] = {}  # nodes, with whether they may be passed as well, as they were used before
        biases: dict[int, bool] = {}
        # Nodes whose predecessors count, whether there are others, and whether layers are passed that were used before
        entered, looped, passed = set(), False, False
        for slot, origin in weights:
            for key in origin.params:
                node, spec = self.spec_of[key[0]]
                if use == FULL_USE and not origin.nodes:
                    self._check_role(name, slot, spec)
                used, after = self._uses.get(key, -1), before >> node & 1
                if used < 0 and key[0] in self._most:
                    self._sliced.add(node)
                sliced = used < 0 and self._most.get(key[0], -1) >= use
                through_time = bool(used == CONSTANT_USE < use and after)  # its own result, a step later
                if (sliced and after) or (used >= use and (after or use > CONSTANT_USE)):
                    passed |= node not in self._layer_biases
                    continue  # a shared layer
                self._uses[key] = max(use, used)
                self._most[key[0]] = max(use, self._most.get(key[0], -1))
                of_kind = biases if node in self._layer_biases else layers
                of_kind[node] = sliced or used >= use or (through_time and of_kind is layers)
                if name in _SCALES or not origin.nodes:
                    self._kinds.setdefault(node, set()).add(use)
                if through_time:
                    looped = True
                    self.through_time[node] = self.through_time.get(node, 0) | before
                elif used < use:
                    entered.add(node)
        for nodes, entering in ((layers, around), (biases, _bits(layers) or around)):
            for node in nodes.keys() & entered:
                self._precede(node, self._perhaps(entering) if nodes[node] else entering, use)
        self.same.update(dict.fromkeys(biases, min(biases, default=0)))
        last = biases or layers
        if not last:
            return around
        out = _bits(node for node, sliced in last.items() if not sliced)
        if looped or any((layers | biases).values()) or (passed and not biases):
            return out | self._perhaps(_bits(last) | around)
        return out

    def _perhaps(self, nodes: int) -> int:
        """The same nodes as some that may or may not count; token ids never count beside activations."""
        certain = nodes & (self.ids - 1)
        return nodes ^ certain | certain * self.ids * 2

    def _precede(self, node: int, nodes: int, use: int) -> None:
        if nodes & self.ids:  # masks count only without activations
            nodes = nodes & ~self.ids or INPUT
        known = self.predecessors.setdefault(node, [None, None, None])
        itself = 1 << node
        if nodes & itself:  # scaled by the same weight before
            nodes |= known[SCALED_USE] or 0
        known[use] = (known[use] or 0) | (nodes & ~(itself | self._perhaps(itself)))

    def before(self, node: int) -> tuple[set[int], set[int]]:
        """The direct predecessors of a node that is used, and nodes that may be among them: one at least, if alone."""
        bits, *others = (nodes for nodes in reversed(self.predecessors[node]) if nodes is not None)
        perhaps = bits // (self.ids * 2) | self.through_time.get(node, 0)
        if node in self._sliced:  # some parts may meet constants only
            for nodes in others:
                perhaps |= nodes | nodes // (self.ids * 2)
        for other, uses in self._kinds.items():
            if bits >> other & 1 and uses >= {SCALED_USE, FULL_USE}:  # perhaps passed through as a scale
                bits ^= 1 << other
                perhaps |= 1 << other | (self.predecessors[other][SCALED_USE] or 0)
        certain, uncertain = (
            {other for other in range(self._count) if nodes >> other & 1} for nodes in (bits, perhaps)
        )
        return certain, uncertain

    def _check_role(self, name: str, slot: str, spec: ParamSpec) -> None:
        """Notes whether a parameter is used as the graph says: of one that is used in several ways, one must fit."""
        added = name in _SUMS or slot == "bias" or (slot in ("self", "input") and name in _SUMS_WITH_PRODUCT)
        if added and spec.role in ("weight", "gain"):
            misuse = f"is a {spec.role} in the graph, and the run adds it to activations"
        elif not added and spec.role == "bias" and name in _PRODUCTS | _BATCHED | _SCALES:
            misuse = "is a bias in the graph, and the run multiplies activations by it"
        else:
            self._fitting.add(spec.name)
            self.misused.pop(spec.name, None)
            return
        if spec.name not in self._fitting:
            self.misused[spec.name] = misuse


def _innermost(tensor: Tensor) -> Tensor:
    """The tensor that function transforms wrap."""
    while (wrapped := unwrap_functorch(tensor)) is not None:
        tensor = wrapped
    return tensor


def _bits(nodes: Iterable[int]) -> int:
    bits = 0
    for node in nodes:
        bits |= 1 << node
    return bits


def _merged(origins: Iterable[Origin]) -> Origin:
    """All that several tensors come from."""
    merged = _CONSTANT
    for origin in origins:
        merged = Origin(*(one | other for one, other in zip(merged, origin, strict=True)))  # type: ignore[operator]
    return merged


def _is_number(tensor: Tensor) -> bool:
    """Whether a tensor is none of indices, ids or masks, which choose among others."""
    return tensor.is_floating_point() or tensor.is_complex()


def _covers(tensor: Tensor) -> bool:
    """Whether a tensor has all elements of its memory."""
    return tensor.layout != torch.strided or tensor.numel() * tensor.element_size() >= tensor.untyped_storage().nbytes()


def _slice(tensor: Tensor) -> Slice:
    """The part of a parameter that a view of it has; the same for views that only reshape or transpose."""
    merged: list[tuple[int, int]] = []
    for size, stride in sorted(zip(tensor.shape, tensor.stride(), strict=True), key=lambda dim: -dim[1]):
        if size > 1 and merged and merged[-1][1] == size * stride:
            merged[-1] = (merged[-1][0] * size, stride)
        elif size > 1:
            merged.append((size, stride))
    return int(tensor.storage_offset()), tuple(merged)
