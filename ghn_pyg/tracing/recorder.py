"""Records the steps of a trace, and which parameters they take up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..graph.arch_data import NO_SHAPE, ParamSpec
from . import kept as reasons
from .steps import Sources, Step, union
from .values import ValueTable


class Recorder(ValueTable):
    """The steps that were recorded so far, of which the input is the first.

    Attributes:
        steps: The steps.
        claimed: Parameters that a step has taken up, with its position.
        folded: Why others are kept.
        scope: Paths of the modules whose forward pass runs, the innermost last.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = [Step("input", ())]
        self.claimed: dict[str, int] = {}
        self.folded: dict[str, str] = {}
        self.scope: list[str] = [""]
        self._muted = False

    def step(
        self,
        kind: str,
        inputs: Sources,
        params: tuple[ParamSpec, ...] = (),
        kernel: tuple[int, int] | None = None,
        operands: tuple[Sources, ...] = (),
    ) -> Sources:
        """Records a step and returns it as a source.

        A parameter is decoded from the first step that uses it; later uses (a shared layer) are nodes without one.
        """
        if self._muted:
            return inputs
        new = tuple(param for param in params if param.name not in self.claimed)
        self.claimed.update((param.name, len(self.steps)) for param in new)
        shape = params[0].node_shape() if params else (1, 1, *kernel) if kernel else NO_SHAPE
        self.steps.append(Step(kind, inputs, self.scope[-1], new, shape, operands))
        return (len(self.steps) - 1,)

    @contextlib.contextmanager
    def muted(self) -> Iterator[None]:
        """Within this context shapes are followed but no steps recorded."""
        before, self._muted = self._muted, True
        try:
            yield
        finally:
            self._muted = before

    def fold(self, params: Iterable[str], reason: str, inputs: Sources = ()) -> Sources:
        """Notes why ``params`` are kept; those that a user's rule predicts all the same become steps behind ``inputs``.

        Returns:
            What stands for ``inputs`` then.
        """
        if self._muted:
            return inputs
        for name in params:
            parameter = self.parameters[name]
            place = None if name in self.claimed or name in self.folded else self._wanted(reason, name)
            if place is None:
                self.folded.setdefault(name, reason)
                continue
            kind, role = place
            spec = ParamSpec(name, tuple(parameter.shape), role)  # type: ignore[arg-type]
            root = kind == "pos_enc"
            step = self.step(kind, () if root else inputs, (spec,))
            inputs = union(inputs, step) if root else step
        return inputs

    def take_back(self, params: Iterable[str], reason: str) -> None:
        """Forgets that ``params`` are kept for this reason, which turned out to be none of theirs."""
        for name in () if self._muted else params:
            if self.folded.get(name) == reason:
                del self.folded[name]

    def _wanted(self, reason: str, name: str) -> tuple[str, str] | None:
        return reasons.wanted(reason, name, self.parameters[name])

    def unclaim(self, step: int, reason: str) -> None:
        """Keeps the parameters of a step after all, which is folded away then, unless a user's rule wants them."""
        if self._muted:
            return
        for spec in self.steps[step].params:
            if self._wanted(reason, spec.name) is not None:
                return
        for spec in self.steps[step].params:
            del self.claimed[spec.name]
            self.folded.setdefault(spec.name, reason)
        self.steps[step].kind, self.steps[step].params = "table", ()

    def join(self, kind: str, operands: Sequence[Sources]) -> Sources:
        """Joins several operands; a step is recorded when they come from different nodes."""
        present = tuple(operand for operand in operands if operand)
        if len(set(present)) <= 1:
            return present[0] if present else ()
        return self.step(kind, union(*present), operands=present)

    def kinds(self, tensor: Any) -> set[str]:
        """The kinds of the steps that ``tensor`` is computed from directly."""
        return {self.steps[step].kind for step in self.sources(tensor)}
