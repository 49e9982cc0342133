"""Why parameters keep their values, and what users want to be predicted all the same."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final

from torch import nn

from .registry import check_place

_ABSENT: Final = "which training architectures do not have"


class Kept(enum.StrEnum):
    """Roles of parameters that keep their values because GHNs have not seen any in training, and other reasons.

    Example:
        >>> Kept.TOKEN in Kept, Kept.UNUSED in DELIBERATE
        (True, False)
    """

    LAYER_SCALE = f"it scales activations, as a layer scale does, {_ABSENT}"
    LOGIT_SCALE = f"it scales scores of attention or similarities, {_ABSENT}"
    POSITION_BIAS = f"it is a table of relative positions, or is added to scores of attention, {_ABSENT}"
    TOKEN = f"it is a token among activations, {_ABSENT}"
    OFFSET = f"it is added to activations, of a layer or norm no bias, {_ABSENT}"
    SLOPE = f"it is a slope of an activation function, {_ABSENT}"
    MAGNITUDE = f"it scales another weight, {_ABSENT}"
    SCRIPTED = "it belongs to a TorchScript module, whose inside cannot be followed"
    LEFT_OUT = "the handler of its layer leaves it out"
    UNUSED = "the forward pass does not use it"
    UNREACHED = "the forward pass as it was traced does not reach it; in another mode or with other values it may"


DELIBERATE: Final = frozenset(
    (Kept.LAYER_SCALE, Kept.LOGIT_SCALE, Kept.POSITION_BIAS, Kept.TOKEN, Kept.OFFSET, Kept.SLOPE, Kept.MAGNITUDE)
)
"""Reasons that are no gap: initial values serve better than what a GHN would make up."""

ParameterRule = Callable[[str, nn.Parameter], tuple[str, str] | None]
"""``rule(name, parameter)`` → node type and role, or ``None`` to keep it."""

PARAMETER_RULES: Final[dict[str, ParameterRule]] = {}
"""Reason → what to predict instead."""


def enters(operation: str) -> str:
    """The reason of a parameter that an operation takes for which there is no node."""
    return f"it enters {operation}, for which the vocabulary has no node type"


def register_parameter(reason: Kept) -> Callable[[ParameterRule], ParameterRule]:
    """Registers a rule that predicts parameters which would be kept.

    Args:
        reason: Which parameters: one of the first seven reasons, such as ``Kept.LAYER_SCALE``.

    Returns:
        A decorator for a function of a parameter's name and the parameter that returns a node type and a role, as for
        :func:`~ghn_pyg.register_layer`, or ``None`` for a parameter that is to be kept. The node stands where the
        parameter enters the data flow; one of type ``"pos_enc"`` has no predecessor.

    Raises:
        ValueError: If parameters are not kept for this reason by choice.

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
    """What a user wants a parameter to be predicted as that would be kept for this reason.

    Raises:
        RuleError: If the rule's answer fits neither the vocabulary nor the parameter.
    """
    rule = PARAMETER_RULES.get(reason)
    answer = None if rule is None else rule(name, parameter)
    if answer is not None:
        check_place(f"the rule that register_parameter has for Kept.{Kept(reason).name}", answer, name, parameter)
    return answer
