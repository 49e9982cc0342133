"""Which graph encoder is best, and at what? ``python -m benchmarks.encoders``

Runs ``ghn-pyg bench encoders`` and writes its tables to the results of benchmarks: parameter prediction, property
prediction, a long-range task, time and memory.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ghn_pyg.bench.config import load_bench
from ghn_pyg.bench.runner import CONFIG_FILE, Result, load_results, run_bench
from ghn_pyg.bench.summary import markdown, save_summary

from .harness import Run, arguments

QUICK = ("encoders=[ghn3]", "seeds=[0]", "tasks={long_range: {graphs: 40, epochs: 1}, cost: {nodes: [16]}}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__, "encoders")
    parser.add_argument("--config", default="encoders", help="a YAML file; by default that of the package")
    parser.add_argument("--set", "-s", dest="changes", action="append", default=[], help="a field to change")
    parser.add_argument("--folder", help="folder of the benchmark, to resume it; by default a temporary one")
    options = parser.parse_args(argv)
    config = load_bench(options.config, [*options.changes, *(QUICK if options.quick else ())])
    run = Run("encoders", options)

    def note(result: Result) -> None:
        state = f"{result.seconds:.0f} s{', failed: ' * bool(result.error)}{result.error}"
        run.note(f"{result.task}, {result.encoder}, seed {result.seed}: {state}")

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(options.folder or scratch)
        results = run_bench(config, folder, note)
        tasks, all_results = load_results(folder)
        save_summary(tasks, all_results, folder)
        bench_config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    saved = {"config": bench_config, "results": [vars(result) for result in all_results]}
    run.finish(saved, markdown(tasks, all_results).rstrip())
    return int(any(result.error for result in results))


if __name__ == "__main__":
    sys.exit(main())
