from .config import BenchConfig, load_bench
from .runner import Result, load_results, run_bench

__all__ = ["BenchConfig", "Result", "load_bench", "load_results", "run_bench"]
