"""Benchmarks: `python -m evals.bench --help`. The README.md in this folder defines what they measure."""
