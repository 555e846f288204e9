"""Evaluate checkpoints on held-out questions: `python -m evals.evaluate`."""
