"""Runs a recipe: `python -m gbpo.run RECIPE.yaml [--field value …]`. `launch/gbpo.py` does the same."""
