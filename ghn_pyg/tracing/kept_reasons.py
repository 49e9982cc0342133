"""Why a parameter keeps its value, and ``register_parameter``, with which users predict it all the same.

The rules decide which reason applies, when they call ``tracer.fold(parameters, reason)``; for functions without a rule,
``kept_by`` does.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn

from .registry import RuleError, check_nodes

_PREDICTABLE: Final = frozenset((torch.float16, torch.bfloat16, torch.float32, torch.float64))
_ABSENT: Final = "which training architectures do not have"


class Kept(enum.StrEnum):
    """Reasons why parameters keep their values.

    The first seven are roles that GHNs do not see in training. Parameters in them are kept on purpose.

    Example:
        >>> Kept.TOKEN in DELIBERATE, Kept.UNUSED in DELIBERATE
        (True, False)
    """

    LAYER_SCALE = f"it scales activations, as a layer scale does, {_ABSENT}"
    LOGIT_SCALE = f"it scales scores of attention or similarities, {_ABSENT}"
    POSITION_BIAS = f"it is a table of relative positions, or is added to scores of attention, {_ABSENT}"
    TOKEN = f"it is a token among activations, {_ABSENT}"
    OFFSET = f"it is added to activations without being the bias of a layer or norm, {_ABSENT}"
    SLOPE = f"it is a slope, exponent or threshold of an activation function, {_ABSENT}"
    MAGNITUDE = f"it scales another weight, {_ABSENT}"
    INTEGER = "its elements are integers or truth values, which cannot hold a prediction"
    QUANTISED = "its elements have less than two bytes, too few for a prediction"
    COMPLEX = "its elements are complex numbers, which GHNs do not predict"
    SPARSE = "it is a sparse tensor, which cannot hold a prediction"
    FLAT = "it is a flat vector that weights are cut from or filled with, and only whole weights are predicted"
    LEFT_OUT = "the handler of its layer leaves it out"
    UNUSED = "the forward pass does not use it"
    UNREACHED = "the traced forward pass does not reach it; in another mode or with other values it may"


DELIBERATE: Final = frozenset(
    (Kept.LAYER_SCALE, Kept.LOGIT_SCALE, Kept.POSITION_BIAS, Kept.TOKEN, Kept.OFFSET, Kept.SLOPE, Kept.MAGNITUDE)
)
"""Reasons that are no gap: initial values serve better than predictions of a GHN that never saw such parameters."""

NO_GAP: Final = DELIBERATE | {Kept.INTEGER, Kept.QUANTISED, Kept.SPARSE, Kept.FLAT}
"""Also those that cannot hold a prediction. A complex weight is a gap, as it has the role of a real one."""

_BY_FUNCTION: Final[dict[Callable[..., Any], Kept]] = {
    Tensor.__setitem__: Kept.TOKEN, torch.where: Kept.TOKEN, torch.prelu: Kept.SLOPE, Tensor.prelu: Kept.SLOPE,
    torch.cdist: Kept.TOKEN,  # centres among activations
}  # fmt: skip

ParameterRule = Callable[[str, nn.Parameter], tuple[str, str] | None]
"""``rule(name, parameter)`` → node type and role, or ``None`` to keep the parameter."""

PARAMETER_RULES: Final[dict[str, ParameterRule]] = {}
"""Reason → rule that predicts the parameters instead."""


def enters(operation: str) -> str:
    """The reason for a parameter that enters an operation without a node type."""
    return f"it enters {operation}, for which the vocabulary has no node type"


def kept_by(function: Callable[..., Any]) -> str:
    """The reason for a parameter that enters a function without a rule."""
    return _BY_FUNCTION.get(function) or enters(getattr(function, "__name__", "a function"))


def kept_for_type(parameter: Tensor) -> Kept | None:
    """The reason for a parameter that cannot hold a prediction, whatever it is used for; ``None`` for others."""
    if parameter.layout is not torch.strided:
        return Kept.SPARSE
    if parameter.dtype in _PREDICTABLE:
        return None
    if parameter.dtype.is_complex:
        return Kept.COMPLEX
    return Kept.QUANTISED if parameter.is_quantized or parameter.dtype.is_floating_point else Kept.INTEGER


def register_parameter(reason: Kept) -> Callable[[ParameterRule], ParameterRule]:
    """Registers a rule that predicts parameters which would be kept.

    Args:
        reason: Which parameters: one of the first seven reasons, such as ``Kept.LAYER_SCALE``.

    Returns:
        A decorator for a function of a parameter's name and the parameter. The function returns a node type and a
        role, as for :func:`~ghn_pyg.register_layer`, or ``None`` to keep the parameter. The node stands where the
        parameter enters the data flow; a node ``"pos_enc"`` has no predecessor.

    Raises:
        ValueError: If ``reason`` is not one of the first seven.

    Example:
        >>> import torch
        >>> from ghn_pyg import from_module
        >>> class Scaled(nn.Linear):
        ...     def __init__(self, channels):
        ...         super().__init__(channels, channels)
        ...         self.gamma = nn.Parameter(torch.ones(channels))
        ...
        ...     def forward(self, x):
        ...         return x + self.gamma * super().forward(x)
        >>> network = nn.Sequential(Scaled(5), nn.Linear(5, 3))
        >>> list(from_module(network, torch.zeros(1, 5)).kept)
        ['0.gamma']
        >>> @register_parameter(Kept.LAYER_SCALE)
        ... def gains(name, parameter):
        ...     return ("bn", "gain") if parameter.numel() == max(parameter.shape) else None
        >>> from_module(network, torch.zeros(1, 5)).node_names
        ['input', '0.weight', '0.bias', '0.gamma', '0:sum', '1.weight', '1.bias']
        >>> del PARAMETER_RULES[Kept.LAYER_SCALE]
    """
    if reason not in DELIBERATE:
        expected = ", ".join(f"Kept.{member.name}" for member in Kept if member in DELIBERATE)
        raise ValueError(f"register_parameter expected one of {expected}, got {reason!r}")

    def register(rule: ParameterRule) -> ParameterRule:
        PARAMETER_RULES[reason] = rule
        return rule

    return register


def wanted(reason: str, name: str, parameter: nn.Parameter) -> tuple[str, str] | None:
    """The node type and role that a user's rule gives a parameter that would be kept for this reason."""
    rule = PARAMETER_RULES.get(reason)
    if rule is None or (answer := rule(name, parameter)) is None:
        return None
    who = f"the rule that register_parameter has for Kept.{Kept(reason).name}"
    match answer:
        case (str(kind), str(role)):
            check_nodes(who, {name: parameter}, [(kind, [(name, role)])])
            return kind, role
    raise RuleError(f"{who} must return (node type, role) or None, got {answer!r:.200}")
