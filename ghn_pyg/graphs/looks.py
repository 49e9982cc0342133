"""What a trace has looked at beyond the structure of a network."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(slots=True)
class Looks:
    """Notes of all traces that one graph is built from.

    Args:
        values: Ids of the parameters and buffers whose values were computed with.
        random: Whether random numbers were drawn.
        rules: Whether a rule was asked about a parameter (see :func:`~ghn_pyg.register_parameter`).
    """

    values: set[int] = dataclasses.field(default_factory=set)
    random: bool = False
    rules: bool = False
