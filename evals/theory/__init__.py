"""Check the theorems of the paper: `python -m evals.theory`."""
