"""What every benchmark shares: times, peak memory, the speed of the machine, and results that are kept."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import gc
import importlib
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

from ghn_pyg import __version__
from ghn_pyg.bench.peak_memory import peak_memory as peak_memory
from ghn_pyg.bench.peak_memory import resident_memory as resident_memory
from ghn_pyg.utils.atomic_files import replacing

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results"
MATRIX_SIZE: Final = 2048
GB: Final = 1e9
_PACKAGES: Final = ("torch", "torchvision", "torch_geometric", "networkx", "numpy")


# --- times ---------------------------------------------------------------------------------------------------------


class Timing(NamedTuple):
    """Wall-clock times of the repeats, and what the last one returned."""

    seconds: list[float]
    result: Any

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def measure(
    function: Callable[..., Any],
    repeats: int = 5,
    budget: float = 8.0,
    setup: Callable[[], tuple[Any, ...]] | None = None,
) -> Timing:
    """Times a function after one call to warm up.

    Args:
        function: What to time.
        repeats: How many calls at most.
        budget: Seconds after which no further call is made once there are three; a first call that takes longer by
            itself is the only one, and counts.
        setup: Makes the arguments of each call, outside of the measured time.
    """
    seconds: list[float] = []
    warm = False
    while True:
        arguments = setup() if setup else ()
        result = None  # what the last call returned goes before the next one needs the memory
        gc.collect()
        began = time.perf_counter()
        result = function(*arguments)
        seconds.append(time.perf_counter() - began)
        if not warm and seconds[0] <= budget:
            seconds.clear()
        warm = True
        enough = len(seconds) >= 3 or max(seconds, default=0.0) > budget
        if len(seconds) >= repeats or (enough and sum(seconds) > budget):
            return Timing(seconds, result)


def ended(function: Callable[[], Any], device: str) -> Callable[[], Any]:
    """The function, which returns when the device has done all that it was given."""
    if device == "cpu":
        return function

    def run() -> Any:
        result = function()
        torch.accelerator.synchronize()
        return result

    return run


def measure_in_turns(
    functions: Mapping[str, Callable[[], Any]], repeats: int = 5, budget: float = 8.0
) -> dict[str, list[float]]:
    """Seconds of several functions, one after another in each round: what else a machine does falls on all alike.

    Args:
        functions: What to time, after one call of each to warm up.
        repeats: How many rounds at most.
        budget: Seconds for each function after which no further round is begun once there are three.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            gc.collect()
            began = time.perf_counter()
            function()
            took = time.perf_counter() - began
            if turn:
                seconds[name].append(took)
        if turn >= 3 and sum(map(sum, seconds.values())) > budget * len(functions):
            break
    return seconds


class Probe:
    """How fast the machine multiplies matrices: 2048³ in float32, sampled between the measurements of a run."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._factors = torch.rand(2, MATRIX_SIZE, MATRIX_SIZE)

    def sample(self, times: int = 3) -> None:
        left, right = self._factors
        if not self.seconds:
            torch.mm(left, right)
        for _ in range(times):
            began = time.perf_counter()
            torch.mm(left, right)
            self.seconds.append(time.perf_counter() - began)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def rate(self) -> float:
        """Operations per second (a product and a sum are two)."""
        return 2 * MATRIX_SIZE**3 / self.median


def geometric_mean(rows: Sequence[dict[str, Any]], key: str) -> float | None:
    """The geometric mean of one value over all rows; ``None`` if a row lacks it."""
    values = [row[key] for row in rows if row.get(key) is not None]
    return statistics.geometric_mean(values) if rows and len(values) == len(rows) else None


def slope(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """The exponent of growth: the slope of the line through log(value) over log(size)."""
    pairs = [(size, value) for size, value in zip(sizes, values, strict=True) if value > 0]
    if len(pairs) < 2:
        return None
    x, y = zip(*((math.log(size), math.log(value)) for size, value in pairs), strict=True)
    return statistics.linear_regression(x, y).slope


# --- memory --------------------------------------------------------------------------------------------------------


def available_memory(device: str = "cpu") -> float:
    """Bytes that can be had without swapping; infinite where the system does not say."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return math.inf


def peak_on(device: str, function: Callable[[], Any]) -> dict[str, int]:
    """:func:`peak_memory`, or on a GPU that of PyTorch's tensors there."""
    if device == "cpu":
        return peak_memory(function)
    torch.cuda.reset_peak_memory_stats()
    baseline = torch.cuda.memory_allocated()
    function()
    peak = torch.cuda.max_memory_allocated()
    return {"baseline": baseline, "peak": peak, "over_baseline": peak - baseline}


def fresh(function: str, **arguments: Any) -> Any:
    """Calls ``"module:function"`` of this package with JSON arguments in a new process, and returns what it returns.

    Raises:
        RuntimeError: If the process fails.
    """
    command = [sys.executable, "-m", "benchmarks.harness", function, json.dumps(arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{function}({arguments}) ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def apart(function: str, device: str, **arguments: Any) -> Any:
    """Calls a function that takes a device: in a new process on a CPU, for its memory, and here on a GPU."""
    arguments = {**arguments, "device": device}
    return fresh(function, **arguments) if device == "cpu" else _found(function)(**arguments)


def _found(function: str) -> Callable[..., Any]:
    module, name = function.split(":")
    return getattr(importlib.import_module(f"benchmarks.{module}"), name)


def _called(function: str, arguments: str) -> None:
    print(json.dumps(_found(function)(**json.loads(arguments))))


# --- results -------------------------------------------------------------------------------------------------------


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()
    return None


def _total_memory() -> float | None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB, 1)
    return None


def environment() -> dict[str, Any]:
    """Hardware, versions, threads, date, and how busy the machine is."""
    versions = {name: metadata.version(name) for name in _PACKAGES}
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": _total_memory(),
        "load": [round(value, 2) for value in os.getloadavg()],
        "system": platform.platform(),
        "versions": {"python": platform.python_version(), "ghn_pyg": __version__, **versions},
        "commit": _commit(),
    }


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column to the left, numbers to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float | None, unit: str = "") -> str:
    """Three significant digits."""
    if value is None:
        return "–"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:.{min(digits, 6)}f}{unit}"


def gigabytes(value: float | None) -> str:
    return "–" if value is None else f"{value / GB:.2f}"


def arguments(description: str | None, benchmark: str) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{benchmark}", description=description)
    parser.add_argument("--repeats", type=int, help="how many times to measure each (after one call to warm up)")
    parser.add_argument("--quick", action="store_true", help="tiny subjects, to see that everything works")
    parser.add_argument("--threads", type=int, help="threads of PyTorch; its own choice by default")
    parser.add_argument("--out", help="folder to write results to; benchmarks/results by default, none with --quick")
    return parser


class Run:
    """One run of a benchmark: its progress, its probe, its results.

    Args:
        name: Name of the benchmark and of its files.
        options: What was asked for.
    """

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        if options.threads:
            torch.set_num_threads(options.threads)
            os.environ["OMP_NUM_THREADS"] = str(options.threads)  # for processes of their own
        self.name = name
        self.options = vars(options)
        self.environment = environment()
        self.began = time.perf_counter()
        self.probe = Probe()
        self.probe.sample()

    def note(self, message: str) -> None:
        """Says on stderr how far the run is."""
        print(f"[{time.perf_counter() - self.began:6.1f} s] {self.name}: {message}", file=sys.stderr, flush=True)

    def heading(self) -> str:
        here = self.environment
        versions = ", ".join(f"{name} {version}" for name, version in here["versions"].items())
        speed = f"{number(self.probe.median)} s for one {MATRIX_SIZE}³ float32 product, {self.probe.rate / 1e9:.0f}"
        cores = f"{here['cores']} cores" + (f" and {here['gpu']}" if here["gpu"] else "")
        load = here["load"][0]
        return (
            f"# {self.name}\n\n{here['date']}, commit {here['commit']}. {here['processor']}, {cores}, "
            f"{here['threads']} threads, {here['memory_gb']} GB of memory, load {load} at the start. {versions}.\n\n"
            f"In the same run: {speed} · 10⁹ operations per second. Times are medians in seconds.\n"
        )

    def finish(self, results: dict[str, Any], *sections: str) -> None:
        """Prints the report and keeps it."""
        self.probe.sample()
        print(self.keep(results, *sections))

    def keep(self, results: dict[str, Any], *sections: str) -> str:
        """Writes ``NAME-DATE.json`` and ``.md``, whole or not at all, where results go; returns the report.

        A long run calls it on the way, so that what is measured is not lost with the run.
        """
        results = {
            "benchmark": self.name,
            "environment": self.environment,
            "options": {name: value for name, value in self.options.items() if name != "out"},
            "matrix_product_s": {"median": self.probe.median, "all": self.probe.seconds},
            "duration_s": round(time.perf_counter() - self.began, 1),
            **results,
        }
        report = "\n\n".join([self.heading().rstrip(), *sections]) + "\n"
        folder = self.options["out"] or (None if self.options["quick"] else RESULTS)
        if folder is None:
            return report
        stem = f"{self.name}-{self.environment['date'][:10]}"
        Path(folder).mkdir(parents=True, exist_ok=True)
        for suffix, text in ((".json", json.dumps(results, indent=1) + "\n"), (".md", report)):
            with replacing(Path(folder, stem + suffix)) as unfinished:
                unfinished.write_text(text, encoding="utf-8")
        self.note(f"wrote {Path(folder, stem)}.json and .md")
        return report


if __name__ == "__main__":
    _called(*sys.argv[1:])
