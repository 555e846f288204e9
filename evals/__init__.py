"""Comparisons, evaluations and reports; used from a checkout, not part of the wheel."""
