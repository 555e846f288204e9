"""`Pass`: the rows of one forward pass, with the tensors that the model and the loss need.

TRL stores a generation in a dict of tensors. `Pass.from_batch` converts this dict.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from trl.trainer.utils import split_pixel_values_by_grid, unsplit_pixel_values_by_grid

Batch = Mapping[str, Any]

# Inputs of a vision-language model, beside the tokens, by the names that TRL uses.
IMAGE_KEYS = (
    "pixel_values",
    "image_grid_thw",
    "num_images",
    "pixel_attention_mask",
    "spatial_shapes",
    "num_tiles",
    "image_sizes",
    "token_type_ids",
    "mm_token_type_ids",
    "image_position_ids",
)


class Row(NamedTuple):
    """Facts about one completion with its prompt, kept in CPU memory so that a pass reads nothing back from the device.

    Args:
        prompt: Number of tokens of the prompt.
        completion: Number of tokens of the completion that the model attends to.
        has_signal: Whether the advantage is not 0 and the policy sampled at least one of the tokens.
        prefix: An index that identifies the prefix, which is the prompt without its last token. Rows with equal
            prefixes have the same index and can share the prefix.
    """

    prompt: int
    completion: int
    has_signal: bool
    prefix: int


def rows_of(batch: Batch) -> list[Row]:
    """The rows of a generation. This reads lengths, advantages and prompts back from the device once.

    Args:
        batch: Tensors of TRL: `prompt_ids` and `prompt_mask` (B, P), padded left; `completion_ids` and
            `completion_mask` (B, T), padded right; `advantages` (B,); `tool_mask` (B, T) where there is one.
    """
    counts = torch.stack(
        [
            batch["prompt_mask"].sum(1),
            batch["completion_mask"].sum(1),
            (batch["advantages"] != 0) & policy_mask(batch).any(1),
        ]
    ).tolist()
    numbers = prefix_numbers(batch["prompt_ids"].tolist(), counts[0])
    return [
        Row(prompt, completion, bool(signal), prefix)
        for prompt, completion, signal, prefix in zip(*counts, numbers, strict=True)
    ]


def prefix_numbers(prompts: Sequence[Sequence[int]], lengths: Iterable[int]) -> list[int]:
    """Number the prefixes of prompts. A prefix is a prompt without its last token; equal prefixes get equal numbers.

    Args:
        prompts: Token ids of the prompts, padded left to one width.
        lengths: Number of tokens of each prompt, without padding.

    >>> prefix_numbers([[0, 5, 7], [4, 5, 7], [0, 5, 8]], [2, 3, 2])
    [0, 1, 0]
    """
    prefixes = [
        (-1,) * (len(ids) - length) + tuple(ids[len(ids) - length : -1])
        for ids, length in zip(prompts, lengths, strict=True)
    ]
    number = {prefix: i for i, prefix in enumerate(sorted(set(prefixes)))}
    return [number[prefix] for prefix in prefixes]


def images_of_rows(images: Batch, numbers: Sequence[int]) -> Batch:
    """The image inputs of some rows. A row may have any number of images, and an image any number of patches."""
    by_row = split_pixel_values_by_grid(dict(images))
    return unsplit_pixel_values_by_grid(
        {
            name: [values[number] for number in numbers] if isinstance(values, list) else values[list(numbers)]
            for name, values in by_row.items()
        }
    )


def with_tensors(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Image inputs whose NumPy arrays are tensors. Image processors without torchvision give arrays.

    TRL can only split tensors into rows, which it does when some of the rows have called a tool.
    """
    return {
        name: torch.from_numpy(np.array(value)) if isinstance(value[0], np.ndarray) else value
        for name, value in fields.items()
    }


def policy_mask(batch: Batch) -> torch.Tensor:
    """Mask of the tokens that the policy sampled, (B, T): the completion's tokens without those that a tool wrote."""
    mask = batch["completion_mask"]
    return mask * batch["tool_mask"] if "tool_mask" in batch else mask


@dataclass(frozen=True)
class Pass:
    """Rows that go through the model in one forward pass.

    Args:
        rows: Lengths and signal of each row, in CPU memory.
        prompt_ids: (B, P), padded left.
        prompt_mask: (B, P).
        completion_ids: (B, T), padded right.
        completion_mask: (B, T), the tokens that the model attends to.
        policy_mask: (B, T), the tokens that the policy sampled; the loss runs over them.
        advantages: A, (B,).
        target_ratio: ρ*, (B,). With TRL's own loss this and the next three fields are unused and hold 1, 0, 1 and 1.
        centred_advantages: Ã, (B,).
        row_weights: Weight of each row's sum of token losses in the loss, (B,).
        entropy_weights: Weight of each row's sum of token entropies in the entropy bonus, (B,).
        old_logps: Log-probs under the trainer's policy when the generation is first used, (B, T). None until the first
            forward pass computes them.
        ref_logps: Log-probs under the reference model, (B, T), or None.
        sampling_logps: Log-probs under the policy that sampled, (B, T), NaN where vLLM could not score a token; or
            None.
        versions: Optimiser steps that the weights had taken that sampled each completion, (B,); or None without
            `generate_ahead`.
        images: Inputs of a vision-language model beside the tokens, by TRL's names.
        idle: The pass exists only so that all ranks run the same number of passes. No loss and no metric counts it.
        numbers: The number of each completion in `rollout_log`, (B,), or None without a log.
    """

    rows: tuple[Row, ...]
    prompt_ids: torch.Tensor
    prompt_mask: torch.Tensor
    completion_ids: torch.Tensor
    completion_mask: torch.Tensor
    policy_mask: torch.Tensor
    advantages: torch.Tensor
    target_ratio: torch.Tensor
    centred_advantages: torch.Tensor
    row_weights: torch.Tensor
    entropy_weights: torch.Tensor
    old_logps: torch.Tensor | None
    ref_logps: torch.Tensor | None
    sampling_logps: torch.Tensor | None
    versions: torch.Tensor | None
    images: Batch
    idle: bool = False
    numbers: torch.Tensor | None = None

    @classmethod
    def from_batch(
        cls, batch: Batch, row_weights: torch.Tensor | None = None, entropy_weights: torch.Tensor | None = None
    ) -> "Pass":
        """A pass with all rows of one of TRL's micro-batches. For GBPO, `batch` also holds `rows` and the targets."""
        ones = torch.ones_like(batch["advantages"])
        return cls(
            rows=tuple(batch.get("rows", ())),
            prompt_ids=batch["prompt_ids"],
            prompt_mask=batch["prompt_mask"],
            completion_ids=batch["completion_ids"],
            completion_mask=batch["completion_mask"],
            policy_mask=policy_mask(batch),
            advantages=batch["advantages"],
            target_ratio=batch.get("target_ratio", ones),
            centred_advantages=batch.get("centred_advantages", torch.zeros_like(ones)),
            row_weights=ones if row_weights is None else row_weights,
            entropy_weights=ones if entropy_weights is None else entropy_weights,
            old_logps=batch.get("old_per_token_logps"),
            ref_logps=batch.get("ref_per_token_logps"),
            sampling_logps=batch.get("sampling_per_token_logps"),
            versions=batch.get("versions"),
            images={key: batch[key] for key in IMAGE_KEYS if key in batch},
            numbers=batch.get("numbers"),
        )

    def to(self, device: torch.device, **options: Any) -> "Pass":
        """A copy of the pass on another device; `options` are passed to `Tensor.to`."""
        moved = self._with_tensors(lambda name, tensor: tensor.to(device, **options))
        images = {
            name: value.to(device, **options) if isinstance(value, torch.Tensor) else value
            for name, value in self.images.items()
        }
        return replace(moved, images=images)

    def take(self, numbers: Sequence[int], width: int) -> "Pass":
        """A pass with some of the rows and with the first `width` columns of their completions.

        Rows with images keep all columns.
        """

        def taken(name: str, value: torch.Tensor) -> torch.Tensor:
            of_completion = value.ndim == 2 and not name.startswith("prompt")
            return value[numbers, :width] if of_completion else value[numbers]

        rows = tuple(self.rows[number] for number in numbers)
        return replace(self._with_tensors(taken), rows=rows, images=images_of_rows(self.images, numbers))

    @property
    def shortest(self) -> int:
        """Number of the row with the fewest tokens."""
        lengths = [row.prompt + row.completion for row in self.rows]
        return lengths.index(min(lengths))

    def as_idle(self) -> "Pass":
        """An idle pass over the same rows: its `policy_mask` is empty, so that no token counts."""
        return replace(self, idle=True, policy_mask=torch.zeros_like(self.policy_mask))

    def _with_tensors(self, change: Callable[[str, torch.Tensor], torch.Tensor]) -> "Pass":
        changed: dict[str, Any] = {
            name: change(name, value) for name, value in vars(self).items() if isinstance(value, torch.Tensor)
        }
        return replace(self, **changed)

    @staticmethod
    def joined(passes: "Sequence[Pass]") -> "Pass":
        """One pass with the rows of several passes of the same generation."""
        one = passes[0]._with_tensors(lambda name, _: torch.cat([vars(some)[name] for some in passes]))
        return replace(one, rows=tuple(row for some in passes for row in some.rows))
