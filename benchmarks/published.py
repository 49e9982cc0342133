"""Times of the published code on a reference machine, and our speedup."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from .harness import table

FIGURES: Final[dict[str, Any]] = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))


def published_seconds(section: dict[str, Any] | None, subject: str) -> float | None:
    """The published time for a network, or for ``"mean"``."""
    if section is None:
        return None
    return section.get("mean") if subject == "mean" else section["seconds"].get(subject)


def speedup(published: float | None, ours: float | None, matrix_product: float) -> dict[str, float] | None:
    """Our speedup over the published time, as measured and normalised to the reference machine.

    The speed of the two machines is compared by the time of a matrix product.
    """
    if published is None or ours is None:
        return None
    raw = published / ours
    return {"raw": raw, "normalised": raw * matrix_product / FIGURES["matrix_product_s"]}


def check_goals(subject: str, values: dict[tuple[str, str], dict[str, float] | None]) -> list[dict[str, Any]]:
    """The goals of ``subject`` with the measured values for (measure, on), and whether they are met."""
    goals = []
    for goal in FIGURES["goals"].get(subject, ()):
        measured = values.get((goal["measure"], goal["on"]))
        best = goal.get("at_least")
        met = measured and {
            name: bool(value >= best if best is not None else value <= goal["at_most"])
            for name, value in measured.items()
        }
        goals.append({"subject": subject, **goal, "measured": measured, "met": met})
    return goals


_MEANING: Final = {
    "speedup": "times faster than published",
    "limit": "times the arithmetic limit",
    "rate": "architectures per second",
    "memory": "GB of peak memory over the weights",
    "smaller": "times less peak memory than published",
}


def goal_table(goals: list[dict[str, Any]]) -> str:
    rows = []
    for goal in goals:
        bound = f"≥ {goal['at_least']}" if "at_least" in goal else f"≤ {goal['at_most']}"
        measured = goal["measured"] or {}
        values = ", ".join(
            f"{name}: {value:.2f} ({'met' if goal['met'][name] else 'missed'})" for name, value in measured.items()
        )
        rows.append([goal["subject"], f"{_MEANING[goal['measure']]}, {goal['on']}", bound, values or "not measured"])
    return table(["", "goal", "bound", "measured"], rows)
