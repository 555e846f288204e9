"""Timed comparisons: `python -m evals.bench --help`, README.md beside this file."""
