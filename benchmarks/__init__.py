"""Measurements against named peers, each run by `python -m benchmarks.<name>`."""
