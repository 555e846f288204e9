"""Runs of a recipe: `python -m gbpo.run RECIPE.yaml [--field value …]`, which is what `launch/gbpo.py` calls."""
