"""Settings that are allowed and usually a mistake, found before training."""

from datasets import Dataset

from .recipe import Recipe


def find(recipe: Recipe, train_set: Dataset, eval_set: Dataset | None) -> list[str]:
    """One line for each hazard of the recipe: the value, the consequence and the mend."""
    return []
