"""Shared by the evaluations: the results file, estimates with intervals, the hardware, the command line."""
