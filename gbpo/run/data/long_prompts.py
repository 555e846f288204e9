"""Drops prompts that are longer than the recipe allows."""

from typing import Any

from datasets import Dataset

from .loading import announce
from .prompts import PromptFormat


def drop_long_prompts(dataset: Dataset, limit: int | None, form: PromptFormat, processing: Any, which: str) -> Dataset:
    """Drop prompts with more than `max_prompt_tokens` tokens, and print how many.

    Args:
        dataset: A data set as `load` returns it.
        limit: The recipe's `max_prompt_tokens`.
        form: The format of the prompts.
        processing: The tokenizer of the model or, for images, its processor. Its chat template counts, as in training.
        which: Which data set this is, for the line.

    Raises:
        ValueError: Every prompt is longer.
    """
    kept = rows_of_short_prompts(dataset, limit, form, processing, which)
    return dataset if len(kept) == len(dataset) else dataset.select(kept)


def rows_of_short_prompts(
    dataset: Dataset, limit: int | None, form: PromptFormat, processing: Any, which: str
) -> list[int]:
    """The rows that `drop_long_prompts` keeps."""
    if limit is None:
        return list(range(len(dataset)))
    lengths = form.lengths(dataset, processing)
    kept = [row for row, length in enumerate(lengths) if length <= limit]
    if not kept:
        raise ValueError(
            f"max_prompt_tokens={limit} would drop all {len(lengths)} prompts of the {which}: the shortest has "
            f"{min(lengths)} tokens. Write a larger number."
        )
    if len(kept) < len(lengths):
        dropped = len(lengths) - len(kept)
        announce(f"max_prompt_tokens={limit} drops {dropped:,} of {len(lengths):,} prompts of the {which}.")
    return kept
