r"""Norms that a network writes out: a value over a statistic of itself, times a gain.

A layer norm :math:`w (x - m(x)) / \sqrt{m((x - m(x))^2) + \varepsilon} + b` gives the steps *statistic* (a mean,
variance or length), *centred* (a value less its mean) and *normalised* (a value over its statistic). They are folded
away; the gain of a normalised value is the node of a norm, and the bias that is added to it belongs to this node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..kept_reasons import Kept
from ..steps import Sources
from ..tracer import Tracer
from .norms import norm_step, normalised_step
from .open_layers import is_constant


def statistic(tracer: Tracer, sources: Sources, rank: int, dims: Sequence[int], kind: str = "statistic") -> Sources:
    """Records a statistic over the dimensions ``dims`` of a value with ``rank`` dimensions.

    A statistic over samples or over the positions of a map is part of a batch norm, others are part of a layer norm.
    """
    step = tracer.step(kind, sources) if sources else sources
    if step != sources:  # inside of a layer with a handler nothing is recorded
        positions = rank > 3 and list(dims) == list(range(2, rank))
        tracer.statistics[step[0]] = ("bn" if 0 in dims or positions else "ln", tuple(dim - rank for dim in dims))
    return step


def centred(tracer: Tracer, value: Sources, other: Sources) -> Sources | None:
    """The difference of two values if ``other`` is the mean of ``value``, else ``None``."""
    if _is_statistic(tracer, other, value):
        return tracer.step("centred", value)
    if len(value) == len(other) == 1 and {*value, *other} <= tracer.statistics.keys():  # a variance is m(x²) - m(x)²
        same = _origin(tracer, tracer.steps[value[0]].inputs) == _origin(tracer, tracer.steps[other[0]].inputs)
        return value if same else None
    return None


def normalised(tracer: Tracer, value: Sources, other: Sources) -> Sources | None:
    """The quotient of two values if ``other`` is a statistic of ``value``, else ``None``."""
    if not _is_statistic(tracer, other, value):
        return None
    norm, origin = tracer.statistics[other[0]], _origin(tracer, value)
    gain = next((tracer.gains[step] for step in (*value, *other) if step in tracer.gains), None)
    if gain is not None and _scales(gain, norm):
        return norm_step(tracer, norm[0], origin, gain, None)
    return normalised_step(tracer, origin, norm)


def shifted(tracer: Tracer, difference: Tensor, mean: Any) -> Sources | None:
    """A value less a constant for each channel, such as the running mean of a batch norm; else ``None``."""
    if not _is_constant_vector(tracer, mean) or not (sources := tracer.sources(difference)):
        return None
    return tracer.step("shifted", sources)


def over_deviation(tracer: Tracer, value: Sources, deviation: Any) -> Sources | None:
    """The quotient of such a difference and another constant for each channel, else ``None``."""
    if len(value) != 1 or tracer.steps[value[0]].kind != "shifted" or not _is_constant_vector(tracer, deviation):
        return None
    inputs, gain = tracer.steps[value[0]].inputs, tracer.gains.get(value[0])
    return (
        norm_step(tracer, "bn", inputs, gain, None) if gain is not None else normalised_step(tracer, inputs, ("bn", ()))
    )


def _is_constant_vector(tracer: Tracer, tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and is_constant(tracer, tensor) and 1 < tensor.numel() == max(tensor.shape)


def scaled(tracer: Tracer, value: Sources, gain: Any, moved: bool = False) -> Sources | None:
    """The product of a value and a parameter if this is the gain of a norm, else ``None``.

    ``moved`` tells that the dimensions of the value are not those that it was normalised over.
    """
    if len(value) != 1 or not _is_gain(tracer, gain):
        return None
    (step,) = value
    inputs, kind = tracer.steps[step].inputs, tracer.steps[step].kind
    if step in tracer.normalised:
        norm = tracer.normalised[step]
        return norm_step(tracer, norm[0], inputs, gain, None) if moved or _scales(gain, norm) else None
    vector = max(gain.shape, default=1) == gain.numel()
    if not vector or (step not in tracer.statistics and kind not in ("centred", "shifted")):
        return None
    # The gain comes before the division.
    later = tracer.step("statistic" if step in tracer.statistics else kind, inputs)
    if later != inputs:
        tracer.gains[later[0]] = gain
        if (name := tracer.parameter(gain)) is not None:
            tracer.folded.setdefault(name, Kept.LAYER_SCALE)  # unless a division follows, whose norm claims it
        if step in tracer.statistics:
            tracer.statistics[later[0]] = tracer.statistics[step]
    return later


def _origin(tracer: Tracer, sources: Sources) -> Sources:
    """What a value was before its mean was subtracted."""
    while len(sources) == 1 and tracer.steps[sources[0]].kind == "centred":
        sources = tracer.steps[sources[0]].inputs
    return sources


def _is_statistic(tracer: Tracer, sources: Sources, value: Sources) -> bool:
    if len(sources) != 1 or sources[0] not in tracer.statistics:
        return False
    return _origin(tracer, tracer.steps[sources[0]].inputs) == _origin(tracer, value)


def _is_gain(tracer: Tracer, tensor: Any) -> bool:
    """Whether a parameter scales channels, by itself or after 1 was added to it."""
    name = tracer.parameter(tensor) if isinstance(tensor, Tensor) else None
    if name is None or tracer.known(tensor).added not in (0, 1):
        return False
    shape = tracer.parameters[name].shape
    return shape[:1] > (1,) or 1 < shape.numel() == max(shape)


def _scales(gain: Tensor, norm: tuple[str, tuple[int, ...]]) -> bool:
    """Whether a gain has a number for each channel, or in a layer norm for the features that it is over."""
    kind, dims = norm
    return kind == "bn" or any(gain.dim() >= -dim and gain.shape[dim] > 1 for dim in dims)
