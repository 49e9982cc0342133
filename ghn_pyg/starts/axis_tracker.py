"""Runs a network and follows the axes of its tensors, from parameters through operators to the output.

Operators are those of ATen, below modules, functions and autograd, so a rule is needed for each kind of operator only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..utils.compat import TorchDispatchMode, operator_name
from ..utils.nested_tensors import copy_with_tensors, tensors_inside
from .axes import atoms
from .axis_notes import Axes, Notes
from .axis_rules import Call, rule_of


class _SeesModules(TorchFunctionMode):
    """Makes modules take their plain paths, not fused ones that do all in one operator."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def follow_axes(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], moments: bool = False) -> Axes:
    """Runs a network in evaluation mode and returns the axes of its parameters and buffers.

    Args:
        model: The network.
        args: Arguments of its forward pass; random values stand for those without data.
        kwargs: Keyword arguments.
        moments: Whether to measure second moments of activations.

    Raises:
        ValueError: If the forward pass fails.
    """
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    some = next((each for each in tensors.values() if each.is_floating_point()), torch.empty(0))

    def real(tensor: Tensor) -> Tensor:
        values = torch.zeros_like(tensor, device="cpu") if tensor.is_meta else tensor.detach()
        if tensor.is_meta and values.is_floating_point():
            values.uniform_(generator=torch.Generator().manual_seed(0))
        return values.to(some.device, some.dtype if values.is_floating_point() else values.dtype)

    args, kwargs = copy_with_tensors(real, (tuple(args), dict(kwargs)))
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    notes = Notes(tensors, moments)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), _SeesModules(), _Tracker(notes):
            output = model.eval()(*args, **kwargs)
    except Exception as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors_inside((args, kwargs)))
        raise ValueError(
            f"the forward pass of {type(model).__name__} fails on inputs of shape {shapes} ({type(error).__name__}: "
            f"{error}); pass example_inputs that it accepts"
        ) from error
    finally:
        for module, training in modes:
            module.training = training
        for buffer, before in buffers:  # counters and caches that the forward pass wrote to
            buffer.data.copy_(before)
    main = next(tensors_inside(output), None)  # others, such as caches of keys and values, follow it
    if main is not None:
        notes.result.output = {atom for axes in notes.known(main).axes[1:] for atom in atoms(axes)}
    return notes.result


class _Tracker(TorchDispatchMode):
    def __init__(self, notes: Notes) -> None:
        super().__init__()
        self.notes = notes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        schema = func._schema.arguments
        named = {argument.name: value for argument, value in zip(schema, args, strict=False)} | (kwargs or {})
        named = {argument.name: named.get(argument.name, argument.default_value) for argument in schema}
        outputs = result if isinstance(result, (tuple, list)) else [result]
        first = next((each for each in outputs if isinstance(each, Tensor)), None)
        inputs = list(tensors_inside((args, kwargs)))
        if first is None or not inputs:
            return result
        seen = [self.notes.known(tensor) for tensor in inputs]
        names = {name for each in seen if each.step < 0 for owners in each.owners for name, _ in owners}
        for name in names:
            self.notes.result.order.setdefault(name, len(self.notes.result.order))
        call = Call(self.notes, operator_name(func).rpartition(".")[2].rstrip("_"), named, inputs, seen, outputs)
        made = rule_of(call)(call)
        active = any(each.step >= 0 for each in seen)
        step = self.notes.step(seen, frozenset(names)) if active else -1
        for output, found in zip([each for each in outputs if isinstance(each, Tensor)], made, strict=False):
            if len(found.axes) == output.dim():
                self.notes.tensors[output] = dataclasses.replace(
                    found, step=step, owners=() if active else found.owners
                )
        return result
