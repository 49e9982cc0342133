"""How each kind of operator of ATen passes on the axes of its inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from torch import Tensor

from .axes import Axis, atoms, fresh, split_at, unite_dimensions
from .axis_notes import Dimension, Followed, Notes, Owner


@dataclasses.dataclass
class Call:
    """A call of an operator."""

    notes: Notes
    name: str
    named: dict[str, Any]
    inputs: list[Tensor]
    seen: list[Followed]
    outputs: Sequence[Any]

    def of(self, name: str) -> Followed | None:
        """What is known of an argument."""
        tensor = self.named.get(name)
        return self.notes.known(tensor) if isinstance(tensor, Tensor) else None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the first output."""
        return tuple(next(each for each in self.outputs if isinstance(each, Tensor)).shape)


def _union(owners: Iterable[frozenset[Owner]]) -> frozenset[Owner]:
    return frozenset().union(*owners)


def _with(each: Followed, dim: int, axes: Dimension) -> tuple[Dimension, ...]:
    return (*each.axes[:dim], axes, *each.axes[dim + 1 :])


def _owners(each: Followed, dimension: int) -> frozenset[Owner]:
    return each.owners[dimension] if each.owners else frozenset()


def _like(each: Followed, dimensions: Sequence[int | None], shape: Sequence[int]) -> Followed:
    """A tensor whose dimensions are those of another, or new ones of a size."""
    pairs = list(zip(dimensions, shape, strict=True))
    axes = tuple(fresh(size, True) if old is None else each.axes[old] for old, size in pairs)
    owners = tuple(frozenset() if old is None else _owners(each, old) for old, _ in pairs)
    return dataclasses.replace(each, axes=axes, owners=owners)


# --- rules: what the outputs of an operator are ----------------------------------------------------------------------


def _view(call: Call) -> list[Followed]:
    """Reshapes: dimensions are regrouped, and split where the output has more."""
    tensor, shape = call.seen[0], call.shape
    groups = split_at([axis for axes in tensor.axes for axis in axes], shape)
    if groups is None:
        return [Followed(tuple(map(fresh, shape)), tail=tensor.tail)]
    sources: dict[Axis, frozenset[Owner]] = {}
    for axes, owners in zip(tensor.axes, tensor.owners, strict=False):
        sources |= {atom: sources.get(atom, frozenset()) | owners for atom in atoms(axes)}
    made = tuple(_union(sources.get(atom, frozenset()) for atom in atoms(group)) for group in groups)
    return [dataclasses.replace(tensor, axes=tuple(map(tuple, groups)), owners=made)]


def _permute(call: Call) -> list[Followed]:
    tensor, count = call.seen[0], len(call.seen[0].axes)
    if call.name == "t":
        order = list(range(count))[::-1]
    elif call.name == "transpose":
        order = list(range(count))
        one, other = call.named["dim0"], call.named["dim1"]
        order[one], order[other] = order[other], order[one]
    else:
        order = [dim % count for dim in call.named["dims"]]
    return [_like(tensor, order, call.shape)]


def _expand(call: Call) -> list[Followed]:
    tensor, shape = call.seen[0], call.shape
    new = len(shape) - len(tensor.axes)
    old = [None if i < new or not tensor.axes[i - new] else i - new for i in range(len(shape))]
    return [_like(tensor, old, shape)]


def _select(call: Call) -> list[Followed]:
    tensor, dim = call.seen[0], call.named["dim"] % len(call.seen[0].axes)
    selected = tensor.axes[dim]
    rest = [i for i in range(len(tensor.axes)) if i != dim]
    outputs = []
    tensors = [each for each in call.outputs if isinstance(each, Tensor)]
    for position, output in enumerate(tensors):
        index = position if call.name == "unbind" else call.named["index"] % max(1, call.inputs[0].shape[dim])
        found = _like(tensor, rest, output.shape)
        if len(selected) == 1 and not selected[0].place:
            found = dataclasses.replace(found, chosen=tensor.chosen | {(selected[0].root, index)})
        outputs.append(found)
    return outputs


def _cut(call: Call) -> list[Followed]:
    """Slices: of all parts at once, or of a first or a last part."""
    tensor, dim = call.seen[0], call.named["dim"] % len(call.seen[0].axes)
    shapes = [tuple(each.shape) for each in call.outputs if isinstance(each, Tensor)]
    size, sizes, place = call.inputs[0].shape[dim], [shape[dim] for shape in shapes], 0
    if sizes == [size]:
        return [tensor]
    if call.name == "slice":
        start = call.named["start"] or 0
        start = start + size if start < 0 else start
        before, after = start, size - start - sizes[0]
        if call.named["step"] != 1 or before < 0 or after < 0:
            return [_like(tensor, [i if i != dim else None for i in range(len(shapes[0]))], shapes[0])]
        known = tensor.axes[dim][0].root.parts if len(tensor.axes[dim]) == 1 else ()
        ends = [sum(part.size for part in known[:i]) for i in range(len(known) + 1)]
        if start in ends and start + sizes[0] in ends:
            parts = known[ends.index(start) : ends.index(start + sizes[0])]
            axes = tuple(parts) if len(parts) == 1 else fresh(sizes[0])
            return [dataclasses.replace(tensor, axes=_with(tensor, dim, axes))]
        # Equal pieces are cut one after the other: queries, keys, values.
        count = size // sizes[0] if size % sizes[0] == 0 and start % sizes[0] == 0 else 0
        sizes = [sizes[0]] * count if count else [each for each in (before, sizes[0], after) if each]
        place = start // sizes[0] if count else int(before > 0)
    pieces: Sequence[Sequence[Axis]] = [fresh(each) for each in sizes]
    if len(tensor.axes[dim]) == 1 and (cut := tensor.axes[dim][0].cut(sizes)):
        pieces = [(part,) for part in cut]
    elif len({*sizes}) == 1 and (groups := split_at(tensor.axes[dim], (len(sizes), sizes[0]))):
        pieces = groups[1:] * len(sizes)
    outputs = []
    for position, shape in enumerate(shapes):
        axes = tuple(pieces[place + position]) if shape[dim] > 1 else ()
        outputs.append(dataclasses.replace(tensor, axes=_with(tensor, dim, axes)))
    return outputs


def _cat(call: Call) -> list[Followed]:
    dim, shape = call.named["dim"] % len(call.shape), call.shape
    pieces = [(each, tensor) for each, tensor in zip(call.seen, call.inputs, strict=True) if tensor.dim() == len(shape)]
    for each, _ in pieces[1:]:
        for i, axes in enumerate(each.axes):
            if i != dim:
                unite_dimensions(axes, pieces[0][0].axes[i])
    whole = (
        Axis(shape[dim], any(axis.place for each, _ in pieces for axis in each.axes[dim])) if shape[dim] > 1 else None
    )
    if whole is not None and len(pieces) > 1:
        whole.parts = tuple(_one(each.axes[dim], tensor.shape[dim]) for each, tensor in pieces)
    elif whole is not None:
        return [pieces[0][0]]
    first = pieces[0][0]
    tails = [each.tail for each, _ in pieces]
    tail = None if None in tails else frozenset().union(*tails)  # type: ignore[arg-type]
    owners = tuple(frozenset().union(*(_owners(each, i) for each, _ in pieces)) for i in range(len(shape)))
    return [Followed(_with(first, dim, (whole,) if whole is not None else ()), owners, tail=tail)]


def _one(axes: Dimension, size: int) -> Axis:
    """A product of axes as one."""
    if len(axes) == 1:
        return axes[0]
    axis = Axis(size, place=not axes or any(each.place for each in axes))
    axis.factors = tuple(axes)
    return axis


def _matrices(call: Call) -> list[Followed]:
    """Products of matrices, in batches or not, with a sum to add or not."""
    one, other = call.seen[-2:]
    call.notes.contract(one, len(one.axes) - 1, other, max(0, len(other.axes) - 2))
    if one.step >= 0 and len(other.axes) > 1:
        call.notes.measure(other, len(other.axes) - 2, call.inputs[-2])
        if call.shape == call.inputs[-2].shape:
            call.notes.result.square |= _names([other])
    lead = one.axes[:-1] if len(one.axes) >= len(other.axes) else other.axes[:-2]
    for mine, its in zip(one.axes[:-2], other.axes[:-2], strict=False):
        unite_dimensions(mine, its)
    axes = tuple(lead) + other.axes[-1:] if len(other.axes) > 1 else tuple(lead)
    if len(call.seen) == 3:
        for mine, its in zip(call.seen[0].axes[::-1], axes[::-1], strict=False):
            unite_dimensions(mine, its)
    owners = tuple(_owners(one, i) for i in range(len(one.axes) - 1)) + ((_owners(other, -1),) if len(axes) > 1 else ())
    tail = _names(call.seen[:-2]) | _names([other])
    return [Followed(axes, owners if one.owners and other.owners else (), tail=_if_any(tail))]


def _names(tensors: Sequence[Followed | None]) -> frozenset[str]:
    """The parameters that tensors which are no activations are made of."""
    followed = [each for each in tensors if each is not None and each.step < 0]
    return frozenset(name for each in followed for owners in each.owners for name, _ in owners)


def _if_any(names: frozenset[str]) -> frozenset[str] | None:
    return names or None


def _convolution(call: Call) -> list[Followed]:
    tensor, weight, bias = call.of("input"), call.of("weight"), call.of("bias")
    assert tensor is not None
    assert weight is not None
    groups, transposed, shape = call.named["groups"], call.named["transposed"], call.shape
    into, out = (0, 1) if transposed else (1, 0)
    channels = tensor.axes[1]
    if groups > 1:
        grouped = split_at(channels, (groups, call.inputs[0].shape[1] // groups))
        if grouped is not None:
            unite_dimensions(grouped[1], weight.axes[into])
            of_weight = split_at(weight.axes[0], (groups, call.named["weight"].shape[0] // groups))
            if of_weight is not None:
                unite_dimensions(grouped[0], of_weight[0])
    else:
        unite_dimensions(channels, weight.axes[into])
        call.notes.measure(weight, into, call.inputs[0].movedim(1, -1))
        if call.inputs[0].shape == shape and not transposed:
            call.notes.result.square |= _names([weight])
    call.notes.reads(weight, into)
    for dim in range(2, len(weight.axes)):
        call.notes.result.kernel |= _owners(weight, dim)
    result = weight.axes[out]
    if groups > 1 and transposed:
        result = fresh(shape[1])
    if bias is not None:
        unite_dimensions(bias.axes[0], result)
    axes = (tensor.axes[0], result, *(fresh(size, True) for size in shape[2:]))
    return [Followed(axes, tail=_if_any(_names([weight, bias])))]


def _embedding(call: Call) -> list[Followed]:
    weight, indices = call.of("weight"), call.of("indices")
    assert weight is not None
    assert indices is not None
    call.notes.result.table |= _owners(weight, 0)
    return [Followed((*indices.axes, weight.axes[1]), tail=_names([weight]))]


def _normalisation(call: Call) -> list[Followed]:
    """Batch, layer, group and RMS norms, with their gains, biases and statistics."""
    tensor = call.of("input") or call.seen[0]
    last = call.name in ("native_layer_norm", "_fused_rms_norm", "rms_norm")
    if call.name == "native_group_norm" and tensor.axes[1]:
        split_at(tensor.axes[1], (call.named["group"], call.named["C"] // call.named["group"]))
    vectors = [call.of(name) for name in ("weight", "bias", "running_mean", "running_var")]
    for vector in vectors:
        if vector is not None:
            pairs = zip(vector.axes, tensor.axes[-len(vector.axes) :] if last else tensor.axes[1:2], strict=False)
            for mine, its in pairs:
                unite_dimensions(mine, its)
    return [dataclasses.replace(tensor, tail=_if_any(_names(vectors[:2])))]


def _attention(call: Call) -> list[Followed]:
    """Scaled dot-product attention in one operator."""
    query, key, value = call.seen[:3]
    call.notes.contract(query, -1, key, -1)
    for dim in range(len(query.axes) - 2):
        unite_dimensions(query.axes[dim], key.axes[dim])
        unite_dimensions(query.axes[dim], value.axes[dim])
    return [Followed(query.axes[:-1] + value.axes[-1:])] * len(call.outputs)


def _lstm(call: Call) -> list[Followed]:
    """An LSTM in one operator, as on CPUs in single precision; its gates share the axis of the state."""
    tensor, state = call.seen[0], fresh(call.named["hidden_size"])
    for number in range(4):  # weights of inputs and states, and their biases
        weight = call.of(f"weight{number}")
        assert weight is not None
        for axis in weight.axes[0]:
            for gate in axis.cut([call.named["hidden_size"]] * 4) or ():
                unite_dimensions((gate,), state)
        if number < 2:
            unite_dimensions(weight.axes[1], state if number else tensor.axes[-1])
            call.notes.reads(weight, 1)
    return [Followed((*tensor.axes[:-1], state))] * len(call.outputs)


def _reduction(call: Call) -> list[Followed]:
    tensor, count = call.seen[0], len(call.seen[0].axes)
    dims = call.named["dim"]
    dims = range(count) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    gone = {dim % count for dim in dims} if count else set()
    if call.named["keepdim"]:
        axes = tuple(() if i in gone else axes for i, axes in enumerate(tensor.axes))
        return [dataclasses.replace(tensor, axes=axes)] * len(call.outputs)
    return [_like(tensor, [i for i in range(count) if i not in gone], call.shape)] * len(call.outputs)


def _other(call: Call) -> list[Followed]:
    """Elementwise operators, pools and all others: dimensions of the size of an input's dimension are the same."""
    shape = call.shape
    axes: list[Dimension | None] = [None if size > 1 else () for size in shape]
    owners: list[frozenset[Owner]] = [frozenset() for _ in shape]
    order = sorted(zip(call.seen, call.inputs, strict=True), key=lambda pair: pair[0].step < 0)  # activations first
    for each, tensor in order:
        if tensor.dim() > len(shape):
            continue
        for i in range(1, tensor.dim() + 1):
            if tensor.shape[-i] != shape[-i] or not each.axes[-i]:
                continue
            if (known := axes[-i]) is None:
                axes[-i] = each.axes[-i]
            else:
                unite_dimensions(known, each.axes[-i])
            owners[-i] |= _owners(each, len(each.axes) - i)
    tail = call.seen[0].tail
    active = [each for each in call.seen if each.step >= 0]
    if call.name in ("add", "sub") and len(call.seen) == 2:
        if len(active) == 2:
            call.notes.add(*active)
        tails = [each.tail for each in call.seen]
        tail = None if None in tails else frozenset().union(*tails)  # type: ignore[arg-type]
    elif call.name == "mul" and len(call.seen) == 2:
        tail = _if_any(_names(call.seen)) or next((each.tail for each in call.seen if each.tail), None)
    elif call.name in _NOT_ZERO_AT_ZERO:
        tail = None
    whole = tuple(fresh(size, True) if dim is None else dim for dim, size in zip(axes, shape, strict=True))
    chosen = frozenset().union(*(each.chosen for each in active))
    return [Followed(whole, tuple(owners), tail=tail, chosen=chosen)] * len(call.outputs)


_NOT_ZERO_AT_ZERO: Final = frozenset({"sigmoid", "hardsigmoid", "exp", "cos", "_softmax", "_log_softmax", "reciprocal"})
_RULES: Final[Mapping[str, Callable[[Call], list[Followed]]]] = (
    dict.fromkeys(("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "_reshape_alias"), _view)
    | dict.fromkeys(("permute", "transpose", "t"), _permute)
    | dict.fromkeys(("select", "unbind"), _select)
    | dict.fromkeys(("slice", "split", "split_with_sizes", "unsafe_split", "narrow"), _cut)
    | dict.fromkeys(("mm", "bmm", "addmm", "baddbmm", "mv", "addmv"), _matrices)
    | dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm",
         "native_layer_norm", "native_group_norm", "_fused_rms_norm", "rms_norm"), _normalisation,
    )
    | {"mkldnn_rnn_layer": _lstm, "expand": _expand, "cat": _cat, "convolution": _convolution, "embedding": _embedding}
    | dict.fromkeys(
        ("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
         "_scaled_dot_product_efficient_attention", "_scaled_dot_product_fused_attention_overrideable",
         "_scaled_dot_product_cudnn_attention"), _attention,
    )
)  # fmt: skip


def rule_of(call: Call) -> Callable[[Call], list[Followed]]:
    """The rule of an operator: by name, or by its arguments."""
    return _RULES.get(call.name) or (_reduction if {"dim", "keepdim"} <= call.named.keys() else _other)
