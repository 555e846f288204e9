"""The prompts of an evaluation, with or without images, and what the model reads for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset

from gbpo.run.data import images
from gbpo.run.data.prompts import PromptFormat

from .batches import pad
from .checkpoint import Checkpoint


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Args:
        ids: Token ids, with those of the images.
        messages: The messages with their images as Pillow's images. None without images.
    """

    ids: list[int]
    messages: list[dict[str, Any]] | None = None


Generate = Callable[[Sequence[Prompt]], list[list[int]]]  # continues prompts


def read_prompts(formatted: Dataset, form: PromptFormat, checkpoint: Checkpoint) -> list[Prompt]:
    """The prompts of a data set that `form.format` returned, with their images."""
    processing = checkpoint.description.processing_class
    if images.column_of(formatted) is None:
        return [*map(Prompt, form.token_ids(formatted["prompt"], processing))]
    chats = [*map(images.filled, formatted["prompt"], images.decoded(formatted))]
    return [Prompt(form.token_ids([chat], processing)[0], chat) for chat in chats]


def model_inputs(
    prompts: Sequence[Prompt],
    completions: Sequence[list[int]],
    side: str,
    form: PromptFormat,
    checkpoint: Checkpoint,
    device: torch.device,
) -> dict[str, torch.Tensor]:
    """What the model reads: padded token ids of prompts with completions, their mask, and the images.

    Args:
        prompts: The prompts. Either all of them have images, or none.
        completions: Token ids after each prompt.
        side: Side of the padding, `"left"` or `"right"`.
        form: The format of the prompts.
        checkpoint: The model.
        device: Device of the result.
    """
    rows = [prompt.ids + completion for prompt, completion in zip(prompts, completions, strict=True)]
    tokens, mask = pad(rows, side, device)
    found = {"input_ids": tokens, "attention_mask": mask}
    if prompts[0].messages is None:
        return found
    of_prompts = form.inputs([prompt.messages for prompt in prompts], checkpoint.description.processor)
    real = of_prompts["attention_mask"].bool()
    for name, value in of_prompts.items():
        if name.endswith("token_type_ids"):  # one for each token; those of text are 0
            types = [
                own[kept].tolist() + [0] * len(completion)
                for own, kept, completion in zip(value, real, completions, strict=True)
            ]
            found[name] = pad(types, side, device)[0]
        elif name not in found:
            found[name] = value.to(device)
    return found
