"""Peak memory of a call in this process."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil


def peak_memory(function: Callable[[], Any]) -> dict[str, int]:
    """Resident memory of this process before a call and at its peak, in bytes.

    Call it in a new process: memory that earlier calls left to the allocator is not counted again. Linux counts in
    units of up to a megabyte. Where the earlier peak of the process cannot be reset, as on macOS, it is ``baseline``.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # returns freed memory to the system
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets the peak
        baseline = psutil.Process().memory_info().rss
    except OSError:
        baseline = _process_peak()
    result = function()
    peak = _process_peak()
    del result
    return {"baseline": baseline, "peak": peak, "over_baseline": max(0, peak - baseline)}


def _process_peak() -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
