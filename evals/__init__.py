"""Comparisons, evaluations, reports and benchmarks. They run from a checkout and are not part of the wheel."""
