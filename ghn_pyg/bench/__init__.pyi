from .config import BenchConfig, load_bench
from .results import Result, load_results
from .runner import run_bench

__all__ = ["BenchConfig", "Result", "load_bench", "load_results", "run_bench"]
