"""Runs the speed and memory benchmarks one after another: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import attention, deepnets, growth, paths, prediction, tracing, training


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny networks and one repeat, for a quick check")
    parser.add_argument("--out", help="folder of the results; benchmarks/results by default, none with --quick")
    arguments = parser.parse_args(argv)
    options = [*(["--quick"] if arguments.quick else []), *(["--out", arguments.out] if arguments.out else [])]
    benchmarks = (tracing, prediction, growth, attention, paths, deepnets, training)
    return max(benchmark.main(options) for benchmark in benchmarks)


if __name__ == "__main__":
    sys.exit(main())
