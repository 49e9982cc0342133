"""Shared by all benchmarks: timing, peak memory, the speed of the machine, and result files."""

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
from ghn_pyg.utils.atomic_files import replacing

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results"
MATRIX_SIZE: Final = 2048
GB: Final = 1e9
_PACKAGES: Final = ("torch", "torchvision", "torch_geometric", "networkx", "numpy")


# --- times ---------------------------------------------------------------------------------------------------------


class Timing(NamedTuple):
    """Wall-clock times of all repeats, and the return value of the last one."""

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
    """Times a function after a warm-up call.

    Args:
        function: The function.
        repeats: Largest number of timed calls.
        budget: Seconds after which timing stops, after three calls at least. A warm-up call that takes longer is the
            only call and counts.
        setup: Returns the arguments of each call, and is not timed.
    """
    seconds: list[float] = []
    is_warm = False
    while True:
        arguments = setup() if setup else ()
        result = None  # frees the last result before the next call
        gc.collect()
        start = time.perf_counter()
        result = function(*arguments)
        seconds.append(time.perf_counter() - start)
        if not is_warm and seconds[0] <= budget:
            seconds.clear()
        is_warm = True
        enough = len(seconds) >= 3 or max(seconds, default=0.0) > budget
        if len(seconds) >= repeats or (enough and sum(seconds) > budget):
            return Timing(seconds, result)


def synchronized(function: Callable[[], Any], device: str) -> Callable[[], Any]:
    """The function, which then waits for the device to finish."""
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
    """Seconds of several functions that take turns, so that other load of the machine affects all of them alike.

    Args:
        functions: The functions; the first round is a warm-up.
        repeats: Largest number of timed rounds.
        budget: Seconds per function after which timing stops, after three rounds at least.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            gc.collect()
            start = time.perf_counter()
            function()
            end = time.perf_counter()
            if turn:
                seconds[name].append(end - start)
        if turn >= 3 and sum(map(sum, seconds.values())) > budget * len(functions):
            break
    return seconds


class Probe:
    """The speed of the machine: times of a 2048³ float32 matrix product, sampled between the measurements of a run.

    Args:
        times: Products of each sample.
    """

    def __init__(self, times: int = 3) -> None:
        self.times = times
        self.seconds: list[float] = []
        self._factors = torch.rand(2, MATRIX_SIZE, MATRIX_SIZE)

    def sample(self) -> None:
        left, right = self._factors
        if not self.seconds:
            torch.mm(left, right)
        for _ in range(self.times):
            start = time.perf_counter()
            torch.mm(left, right)
            self.seconds.append(time.perf_counter() - start)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def rate(self) -> float:
        """Floating-point operations per second (a multiplication and an addition are two)."""
        return 2 * MATRIX_SIZE**3 / self.median


def geometric_mean(rows: Sequence[dict[str, Any]], key: str) -> float | None:
    """The geometric mean of a value over all rows; ``None`` if a row has none."""
    values = [row[key] for row in rows if row.get(key) is not None]
    return statistics.geometric_mean(values) if rows and len(values) == len(rows) else None


def slope(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """The exponent of growth: the slope of a linear regression of log(value) on log(size)."""
    pairs = [(size, value) for size, value in zip(sizes, values, strict=True) if value > 0]
    if len(pairs) < 2:
        return None
    x, y = zip(*((math.log(size), math.log(value)) for size, value in pairs), strict=True)
    return statistics.linear_regression(x, y).slope


# --- memory --------------------------------------------------------------------------------------------------------


def available_memory(device: str = "cpu") -> float:
    """Available memory in bytes; infinite where the system does not report it."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return math.inf


def device_peak_memory(device: str, function: Callable[[], Any]) -> dict[str, int]:
    """:func:`peak_memory` on a CPU, peak memory of PyTorch's allocator on a GPU."""
    if device == "cpu":
        return peak_memory(function)
    torch.cuda.reset_peak_memory_stats()
    baseline = torch.cuda.memory_allocated()
    function()
    peak = torch.cuda.max_memory_allocated()
    return {"baseline": baseline, "peak": peak, "over_baseline": peak - baseline}


def in_new_process(function: str, **arguments: Any) -> Any:
    """Calls ``"module:function"`` of this package with JSON arguments in a new process.

    Raises:
        RuntimeError: If the process fails.
    """
    command = [sys.executable, "-m", "benchmarks.harness", function, json.dumps(arguments)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if process.returncode:
        raise RuntimeError(f"{function}({arguments}) ended with {process.returncode}: {process.stderr.strip()[-2000:]}")
    return json.loads(process.stdout.splitlines()[-1])


def call_on_device(function: str, device: str, **arguments: Any) -> Any:
    """Calls a function for a device: in a new process for the memory of a CPU, in this process for a GPU."""
    arguments = {**arguments, "device": device}
    return in_new_process(function, **arguments) if device == "cpu" else _function(function)(**arguments)


def _function(function: str) -> Callable[..., Any]:
    module, name = function.split(":")
    return getattr(importlib.import_module(f"benchmarks.{module}"), name)


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
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    return None


def _total_memory() -> float | None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB, 1)
    return None


def environment() -> dict[str, Any]:
    """Hardware, versions, threads, date and load of the machine."""
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
    """A Markdown table, with numbers in all but the first column."""
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
    """A parser with the options of all benchmarks."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{benchmark}", description=description)
    parser.add_argument("--repeats", type=int, help="timed calls of each measurement, after a warm-up call")
    parser.add_argument("--quick", action="store_true", help="tiny networks and one repeat, for a quick check")
    parser.add_argument("--threads", type=int, help="threads of PyTorch; by default its own choice")
    parser.add_argument("--out", help="folder of the results; benchmarks/results by default, none with --quick")
    return parser


class Run:
    """A run of a benchmark, with its progress messages, speed probe and result files.

    Args:
        name: Name of the benchmark and of its files.
        options: The parsed options.
    """

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        if options.threads:
            torch.set_num_threads(options.threads)
            os.environ["OMP_NUM_THREADS"] = str(options.threads)  # for new processes
        self.name = name
        self.options = vars(options)
        self.environment = environment()
        self.start = time.perf_counter()
        self.probe = Probe(1 if options.quick else 3)
        self.probe.sample()

    def note(self, message: str) -> None:
        """Prints the progress on stderr."""
        print(f"[{time.perf_counter() - self.start:6.1f} s] {self.name}: {message}", file=sys.stderr, flush=True)

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
        """Writes the results and prints the report."""
        self.probe.sample()
        print(self.save(results, *sections))

    def save(self, results: dict[str, Any], *sections: str) -> str:
        """Writes ``NAME-DATE.json`` and ``.md`` atomically, and returns the report.

        Long benchmarks also call it on the way, so that an aborted run keeps its measurements.
        """
        results = {
            "benchmark": self.name,
            "environment": self.environment,
            "options": {name: value for name, value in self.options.items() if name != "out"},
            "matrix_product_s": {"median": self.probe.median, "all": self.probe.seconds},
            "duration_s": round(time.perf_counter() - self.start, 1),
            **results,
        }
        report = "\n\n".join([self.heading().rstrip(), *sections]) + "\n"
        folder = self.options["out"] or (None if self.options["quick"] else RESULTS)
        if folder is None:
            return report
        stem = f"{self.name}-{self.environment['date'][:10]}"
        Path(folder).mkdir(parents=True, exist_ok=True)
        for suffix, text in ((".json", json.dumps(results, indent=1) + "\n"), (".md", report)):
            with replacing(Path(folder, stem + suffix)) as temporary:
                temporary.write_text(text, encoding="utf-8")
        self.note(f"wrote {Path(folder, stem)}.json and .md")
        return report


if __name__ == "__main__":
    print(json.dumps(_function(sys.argv[1])(**json.loads(sys.argv[2]))))
