"""Recipes: their fields, how they are parsed, and checks of their values."""
