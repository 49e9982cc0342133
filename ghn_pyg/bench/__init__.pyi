from .config import BenchConfig, load_bench
from .runner import Result, kept_results, run_bench

__all__ = ["BenchConfig", "Result", "kept_results", "load_bench", "run_bench"]
