"""Runs each prompt once. All completions of the prompt then attend to its cached keys and values."""

from collections.abc import Callable, Sequence
from copy import copy
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import DynamicCache, GenerationConfig

from .batch import Row, prefix_numbers
from .capabilities import CACHE
from .layout import is_cheaper, shared_cost


def prefixes_of(
    prompt_ids: torch.Tensor, rows: Sequence[Row], width: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The distinct prefixes of some rows. A prefix is a prompt without its last token.

    Args:
        prompt_ids: Prompts of the rows, (B, P), padded left.
        rows: Lengths and prefix indices of the rows.
        width: Number of columns W of the result, at least the length of the longest prefix.

    Returns:
        Token ids of the prefixes, (U, W), padded left; the attention mask of the prefixes, (U, W); the index of each
        row's prefix, (B,).
    """
    _, examples, prefix_of = np.unique([row.prefix for row in rows], return_index=True, return_inverse=True)
    lengths = np.array([rows[example].prompt - 1 for example in examples])
    device = prompt_ids.device
    ids = prompt_ids[:, prompt_ids.size(1) - 1 - width : -1][torch.from_numpy(examples).to(device)]
    mask = torch.from_numpy(np.arange(width) >= (width - lengths)[:, None]).long().to(device)
    return ids, mask, torch.from_numpy(prefix_of).to(device)


def past(model: nn.Module, ids: torch.Tensor, mask: torch.Tensor, prefix_of: torch.Tensor) -> DynamicCache:
    """Run every prefix once and return the keys and values of each row's prefix.

    Args:
        model: Causal language model, not sharded.
        ids: Distinct prefixes, (U, W), padded left.
        mask: Attention mask of the prefixes, (U, W).
        prefix_of: Index of each row's prefix, (B,).

    Returns:
        A cache with B rows and W tokens. Gradients flow through the cache.
    """
    cache = DynamicCache(config=model.config)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    inputs = {"input_ids": ids.masked_fill(mask == 0, 0), "attention_mask": mask, "position_ids": positions}
    model(**inputs, **{CACHE: cache}, logits_to_keep=1)
    cache.batch_select_indices(prefix_of)
    return cache


def pays(rows: Sequence[Row]) -> bool:
    """Whether sharing prompts saves enough tokens in one pass over these rows."""
    longest, completion = max(row.prompt for row in rows), max(row.completion for row in rows)
    if longest < 2:
        return False
    shared = shared_cost(len({row.prefix for row in rows}), longest, len(rows), completion)
    return is_cheaper(shared, alone=len(rows) * max(row.prompt + row.completion for row in rows))


def numbers_where_it_pays(rows: Sequence[Row]) -> np.ndarray | None:
    """Index of each row's prefix, (B,), or None if sharing prompts cannot save enough tokens over all these rows."""
    different = {row.prefix: row.prompt for row in rows}
    shared = sum(different.values()) + sum(shared_cost(0, row.prompt, 1, row.completion) for row in rows)
    if not is_cheaper(shared, sum(row.prompt + row.completion for row in rows)):
        return None
    return np.unique([row.prefix for row in rows], return_inverse=True)[1]


def generate_after_prefixes(generate: Callable[..., Any], decoder: nn.Module) -> Callable[..., Any]:
    """Wrap a model's `generate`: run each distinct prompt once and pass the keys and values of all prompts to it.

    Args:
        generate: The model's `generate`.
        decoder: The model that `generate` calls.
    """

    def shared_generate(input_ids, attention_mask, generation_config, **inputs):
        if not inputs and input_ids.size(1) > 1 and _decodes_plainly(generation_config, decoder.generation_config):
            lengths = attention_mask.sum(1).tolist()
            numbers = prefix_numbers(input_ids.tolist(), lengths)
            rows = [Row(length, 0, False, number) for length, number in zip(lengths, numbers, strict=True)]
            shared = shared_cost(len(set(numbers)), input_ids.size(1), len(rows), 0)
            if is_cheaper(shared, alone=input_ids.numel()):
                inputs = {CACHE: past(decoder, *prefixes_of(input_ids, rows, input_ids.size(1) - 1))}
        return generate(
            input_ids=input_ids, attention_mask=attention_mask, generation_config=generation_config, **inputs
        )

    return shared_generate


def _decodes_plainly(*configs: GenerationConfig) -> bool:
    """Whether `generate` continues each row once, without beams, and uses the default, growing cache.

    The cache name `hybrid`, which some models on the Hub still give, counts as the default.
    """
    return all(
        config.num_beams in (None, 1)
        and config.use_cache is not False
        and config.cache_implementation in (None, "hybrid")
        for config in configs
    )


def once_per_group(
    tokenize: Callable[[list[Any]], tuple[Any, Any, dict[str, Any]]], prompts: list[Any]
) -> tuple[Any, Any, dict[str, Any]]:
    """Tokenize a run of equal consecutive prompts only once.

    Args:
        tokenize: TRL's `_tokenize_prompts`, which returns token ids, images and multimodal fields of prompts.
        prompts: One prompt for each completion.
    """
    different, counts = zip(*((prompt, len(list(same))) for prompt, same in groupby(prompts)), strict=True)
    prompt_ids, images, multimodal_fields = tokenize(list(different))

    def of_rows(values):
        return [copy(value) for value, count in zip(values, counts, strict=True) for _ in range(count)]

    return of_rows(prompt_ids), images and of_rows(images), {k: of_rows(v) for k, v in multimodal_fields.items()}
