"""Benchmarks of graph encoders: parameter prediction, property prediction, graph regression, speed and memory."""
