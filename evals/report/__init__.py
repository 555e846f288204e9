"""The report of a comparison: `python -m evals.report`."""
