"""Records the steps of a trace, and which parameters are predicted or kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..graph.arch_data import NO_SHAPE, ParamSpec
from .kept_reasons import kept_for_type, wanted
from .steps import Sources, Step, union
from .values import ValueTable


class Recorder(ValueTable):
    """The steps that were recorded so far, of which the input is the first."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = [Step("input", ())]
        self.claimed: dict[str, int] = {}  # predicted parameters, with the index of their step
        self.folded: dict[str, str] = {}  # kept parameters, with the reason
        self.of_other_types: dict[str, str] = {}  # those that cannot hold a prediction, with the reason
        self.dense: dict[int, Tensor] = {}  # what stands for a sparse or nested tensor, by its id
        self.has_layouts = False  # whether there are such tensors
        self.scope: list[str] = [""]  # paths of the running modules, the innermost last
        self._muted = False
        self._constant: set[int] = set()  # steps that no data reaches
        self._on_constants: dict[str, list[int]] = {}  # steps that use a parameter on constants, by its name

    def adopt(self, network: nn.Module) -> None:
        """Makes the parameters known. Those that cannot hold a prediction are kept, whatever the network does."""
        super().adopt(network)
        self.has_layouts |= not {torch.strided}.issuperset(tensor.layout for tensor in self.owned.values())
        for name, parameter in self.parameters.items():
            if (reason := kept_for_type(parameter)) is not None:
                self.of_other_types[name] = reason
                self.claimed[name] = 0  # so that no step claims it

    def step(
        self,
        kind: str,
        inputs: Sources,
        params: tuple[ParamSpec, ...] = (),
        kernel: tuple[int, int] | None = None,
        operands: tuple[Sources, ...] = (),
    ) -> Sources:
        """Records a step and returns it as a source.

        A parameter is decoded from the first step that uses it; a shared layer gives further nodes without parameters.
        A step on constants, such as a first state of zeros, makes way for the first one on data.
        """
        if self._muted:
            return inputs
        if not self._constant.issuperset(inputs):
            if self._on_constants:
                self._make_way(kind, params)
        else:
            if kind != "pos_enc":
                self._constant.add(len(self.steps))
            for param in params:
                self._on_constants.setdefault(param.name, []).append(len(self.steps))
        new = tuple([param for param in params if param.name not in self.claimed])
        for param in new:
            self.claimed[param.name] = len(self.steps)
        shape = params[0].node_shape() if params else (1, 1, *kernel) if kernel else NO_SHAPE
        self.steps.append(Step(kind, inputs, self.scope[-1], new, shape, operands))
        return (len(self.steps) - 1,)

    def _make_way(self, kind: str, params: tuple[ParamSpec, ...]) -> None:
        """Folds away the steps of this kind that have used the parameters on constants, unless a layer took them."""
        for first in (step for param in params for step in self._on_constants.pop(param.name, ())):
            step = self.steps[first]
            if kind == "bias":  # stays with its weight
                stays = any(self.steps[weight].params for weight in step.inputs)
            else:
                stays = self._enters_layer(first)
            if step.kind == kind and not stays:
                for spec in step.params:
                    del self.claimed[spec.name]
                step.kind, step.params = "table", ()

    def _enters_layer(self, first: int) -> bool:
        """Whether a layer or norm that was recorded since depends on a step, or a bias of more than that."""
        reached = {first}
        for index in range(first + 1, len(self.steps)):
            step = self.steps[index]
            if not reached.isdisjoint(step.inputs):
                reached.add(index)
                if step.params and index not in self._constant:
                    return True
        return False

    def join(self, kind: str, operands: Sequence[Sources]) -> Sources:
        """Joins several operands; a step is recorded when they come from different nodes."""
        present = tuple(operand for operand in operands if operand)
        if len(set(present)) <= 1:
            return present[0] if present else ()
        return self.step(kind, union(*present), operands=present)

    @contextlib.contextmanager
    def muted(self) -> Iterator[None]:
        """Within this context shapes are followed but no steps recorded."""
        before, self._muted = self._muted, True
        try:
            yield
        finally:
            self._muted = before

    def fold(self, params: Iterable[str], reason: str, inputs: Sources = ()) -> Sources:
        """Keeps parameters for a reason, unless a rule of ``register_parameter`` predicts them.

        Returns:
            ``inputs``, or the steps of predicted parameters that follow them.
        """
        if self._muted:
            return inputs
        for name in params:
            parameter = self.parameters[name]
            node = None if name in self.claimed or name in self.folded else wanted(reason, name, parameter)
            if node is None:
                self.folded.setdefault(name, reason)
                continue
            kind, role = node
            spec = ParamSpec(name, tuple(parameter.shape), role)  # type: ignore[arg-type]
            if kind == "pos_enc":  # has no predecessor
                inputs = union(inputs, self.step(kind, (), (spec,)))
            else:
                inputs = self.step(kind, inputs, (spec,))
        return inputs

    def take_back(self, params: Iterable[str], reason: str) -> None:
        """Forgets that ``params`` are kept for this reason, which turned out to be wrong."""
        for name in () if self._muted else params:
            if self.folded.get(name) == reason:
                del self.folded[name]

    def unclaim(self, step: int, reason: str) -> None:
        """Keeps the parameters of a recorded step after all and folds it away, unless a user's rule predicts them."""
        specs = self.steps[step].params
        if self._muted or any(wanted(reason, spec.name, self.parameters[spec.name]) is not None for spec in specs):
            return
        for spec in specs:
            del self.claimed[spec.name]
            self.folded.setdefault(spec.name, reason)
        self.steps[step].kind, self.steps[step].params = "table", ()

    def keep(self, name: str, reason: str) -> None:
        """Keeps a parameter even if a step has claimed it."""
        if not self._muted:
            if name in self.claimed:
                self.unclaim(self.claimed[name], reason)
            self.folded[name] = reason

    def kinds(self, tensor: Any) -> set[str]:
        """The kinds of the steps that ``tensor`` is computed from directly."""
        return {self.steps[step].kind for step in self.sources(tensor)}
