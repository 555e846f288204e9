"""The theorems of the paper as checks: `python -m evals.theory`."""
