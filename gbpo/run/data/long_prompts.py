"""Drops prompts that are longer than the recipe allows."""

from typing import TYPE_CHECKING

from datasets import Dataset

from ..recipe.arguments import RunArguments
from .loading import announce, format_prompts, prompt_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def drop_long_prompts(
    dataset: Dataset, run: RunArguments, tokenizer: "PreTrainedTokenizerBase", which: str = "training set"
) -> Dataset:
    """Drop prompts with more than `max_prompt_tokens` tokens, and print how many.

    Args:
        dataset: A data set as `load` returns it.
        run: The recipe's fields of the prompt.
        tokenizer: The tokenizer of the model. Its chat template counts, as in training.
        which: Which data set this is, for the line.

    Raises:
        ValueError: Every prompt is longer.
    """
    limit = run.max_prompt_tokens
    if limit is None:
        return dataset
    lengths = [len(ids) for ids in prompt_ids(format_prompts(dataset, run, tokenizer)["prompt"], tokenizer)]
    kept = [row for row, length in enumerate(lengths) if length <= limit]
    if not kept:
        raise ValueError(
            f"max_prompt_tokens={limit} would drop all {len(lengths)} prompts of the {which}: the shortest has "
            f"{min(lengths)} tokens. Write a larger number."
        )
    if len(kept) == len(lengths):
        return dataset
    announce(
        f"max_prompt_tokens={limit} drops {len(lengths) - len(kept):,} of {len(lengths):,} prompts of the {which}."
    )
    return dataset.select(kept)
