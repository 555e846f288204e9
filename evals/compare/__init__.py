"""Compare algorithms on a recipe: `python -m evals.compare`."""
