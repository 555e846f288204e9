"""Prompts that are run once for all of their completions, which attend to their keys and values."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from inspect import signature
from itertools import groupby
from typing import Any

import torch
from accelerate.utils import DistributedType
from peft import PeftModel
from torch import nn
from transformers import DynamicCache, GenerationConfig
from trl import GRPOTrainer

from . import capabilities as architecture

# What must be saved of the tokens: the prompts are a forward pass of their own.
_WORTH = 1 / 8
# What a row's copy of the keys and values of a token counts, beside a token that is run: two of about 17 activations of
# the width that a layer keeps (arXiv 2205.05198), and less where heads share them.
_COPY = 1 / 8

_PASSED = {"input_ids", "attention_mask", "position_ids", "past_key_values", "logits_to_keep"}
_WHOLE_MODELS = {DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU}


def cost(prompts: Any, prompt: Any, rows: Any, completion: Any) -> Any:
    """What a pass with shared prompts costs, in tokens that are run; of numbers or arrays.

    Args:
        prompts: Different prompts.
        prompt: Tokens of the longest of them.
        rows: Rows, which begin with the last token of their prompt.
        completion: Tokens of the longest completion.
    """
    before = prompt - 1
    return prompts * before + rows * (1 + completion + _COPY * before)


def is_cheaper(shared: Any, alone: Any) -> Any:
    """Whether so many tokens with shared prompts are worth it, beside those of rows with a prompt each."""
    return shared <= (1 - _WORTH) * alone


def distinct(prompt_ids: torch.Tensor, attended: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The different prompts, (U, P), -1 where they are padded, and which of them each row has, (B,)."""
    return prompt_ids.masked_fill(~attended, -1).unique(dim=0, return_inverse=True)


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Of the tokens of each row, from 0; (B, P)."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def past(model: nn.Module, prompts: torch.Tensor, prompt_of: torch.Tensor) -> DynamicCache:
    """Keys and values of each row's prompt, every prompt run once.

    Args:
        model: Causal language model, not sharded.
        prompts: Different prompts, (U, P), padded with -1.
        prompt_of: Which of them each row has, (B,).

    Returns:
        Cache of B rows and P tokens, with gradients.
    """
    cache = DynamicCache(config=model.config)
    mask = (prompts >= 0).long()
    inputs = {"input_ids": prompts.clamp(min=0), "attention_mask": mask, "position_ids": positions(mask)}
    model(**inputs, past_key_values=cache, logits_to_keep=1)
    cache.batch_select_indices(prompt_of)
    return cache


class SharingGRPOTrainer(GRPOTrainer):
    """TRL's GRPOTrainer that runs a prompt once for all of its completions when transformers generates them.

    With batches padded by TRL, of a model that is not sharded and whose layers are attention; vLLM and continuous
    batching have caches of their own. Not with dropout, which would be the same for all completions of a prompt.
    Tokenized once is every prompt of text.
    """

    share_prompts = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._noisy = architecture.has_dropout(self.model)
        whole = self.accelerator.distributed_type in _WHOLE_MODELS and not self.is_distributed_loading_by_transformers
        takes = signature(type(_decoder(self.model)).forward).parameters.keys() >= _PASSED
        possible = architecture.shares(self.model.config) and not architecture.is_prompt_tuned(self.model)
        self._can_share = takes and possible and whole and not self._noisy

    @property
    def _shares(self) -> bool:
        return self.share_prompts and self._can_share and not self.model.is_activation_checkpointing

    def _tokenize_prompts(self, prompts):
        """Those of a group stand together, and are rendered and tokenized once."""
        if self._is_vlm or self.environment_factories is not None:  # images; tools of the row's environment
            return super()._tokenize_prompts(prompts)
        different, counts = zip(*((prompt, len(list(same))) for prompt, same in groupby(prompts)), strict=True)
        prompt_ids, images, fields = super()._tokenize_prompts(list(different))

        def of_rows(values):
            return [copy(value) for value, count in zip(values, counts, strict=True) for _ in range(count)]

        return of_rows(prompt_ids), images and of_rows(images), {name: of_rows(v) for name, v in fields.items()}

    def _generate_single_turn(self, *args, **kwargs):
        with self._prefilling_once():
            return super()._generate_single_turn(*args, **kwargs)

    @contextmanager
    def _prefilling_once(self) -> Iterator[None]:
        """Inside, the model's `generate` is given the keys and values of all prompts, each of them run once."""
        model = self.accelerator.unwrap_model(self.model_wrapped)
        if "generate" in vars(model):  # another library's, which may keep a cache of its own
            yield
            return
        generate = model.generate

        def from_past(input_ids, attention_mask, generation_config, **inputs):
            plain = not inputs and _decodes_plainly(generation_config, model.generation_config)
            if plain and self._shares and input_ids.size(1) > 1:
                prompts, prompt_of = distinct(input_ids[:, :-1], attention_mask[:, :-1].bool())
                shared = cost(len(prompts), input_ids.size(1), len(input_ids), 0)
                if is_cheaper(shared, alone=input_ids.numel()):
                    inputs = {"past_key_values": past(_decoder(model), prompts, prompt_of)}
            return generate(
                input_ids=input_ids, attention_mask=attention_mask, generation_config=generation_config, **inputs
            )

        model.generate = from_past
        try:
            yield
        finally:
            del model.generate


def _decoder(model: Any) -> Any:
    """What `generate` of a model calls."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _decodes_plainly(*configs: GenerationConfig) -> bool:
    """Whether each row is continued once, with a cache that grows with it; Hub models may still name `hybrid`."""
    return all(
        config.num_beams in (None, 1)
        and config.use_cache is not False
        and config.cache_implementation in (None, "hybrid")
        for config in configs
    )
