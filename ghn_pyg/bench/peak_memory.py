"""Memory of this process: what it holds now, and at its highest point during a call."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def peak_memory(function: Callable[[], Any]) -> dict[str, int]:
    """Resident memory of this process before a call and at its highest point, in bytes.

    It means something in a process that has done little before. The kernel counts in steps of up to a megabyte. Where
    it cannot forget an earlier peak, ``baseline`` is that peak, and ``over_baseline`` what the call adds to it.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back to the system
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the highest point starts anew
        baseline = resident_memory()
    except OSError:
        baseline = _highest()
    result = function()
    peak = _highest()
    del result
    return {"baseline": baseline, "peak": peak, "over_baseline": max(0, peak - baseline)}


def _status(field: str) -> int | None:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return None


def resident_memory() -> int:
    """Bytes that this process holds now (at its highest point where the system does not say)."""
    return _status("VmRSS") or _highest()


def _highest() -> int:
    found = _status("VmHWM")
    if found is None:  # not Linux
        found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return found
