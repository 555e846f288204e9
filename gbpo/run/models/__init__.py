"""Models that a recipe can name."""
