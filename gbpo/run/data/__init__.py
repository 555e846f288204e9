"""Data sets that a recipe can name."""
