"""Benchmarks: one harness, one file per question; see README.md."""
