"""The models that a recipe can name, and their configurations."""
