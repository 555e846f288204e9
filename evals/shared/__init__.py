"""Shared by the evaluations: the results file, estimates with intervals, the command line."""
