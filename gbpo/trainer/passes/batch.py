"""`Pass`: the rows of one forward pass, with what the model and the loss need of them.

TRL passes a generation on as a dict of tensors. That dict ends at `Pass.from_batch`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

Batch = Mapping[str, Any]

# What TRL hands to a vision-language model beside the tokens.
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
    """What the host knows of one completion, so that no tensor has to be read back before a forward pass.

    Args:
        prompt: Tokens of its prompt.
        completion: Tokens of its completion that the model attends to.
        has_signal: Its advantage is not 0 and the policy sampled at least one of its tokens.
        prefix: Number of its prompt without the last token; rows with the same one can share it.
    """

    prompt: int
    completion: int
    has_signal: bool
    prefix: int


def rows_of(batch: Batch) -> list[Row]:
    """The rows of a generation; reads its lengths, advantages and prompts back from the device once.

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
    """Which prefix each prompt has: all its tokens but the last. Equal prefixes have equal numbers.

    Args:
        prompts: Token ids, all of one width, padded left.
        lengths: Tokens of each prompt without the padding.

    >>> prefix_numbers([[0, 5, 7], [4, 5, 7], [0, 5, 8]], [2, 3, 2])
    [0, 1, 0]
    """
    prefixes = [
        (-1,) * (len(ids) - length) + tuple(ids[len(ids) - length : -1])
        for ids, length in zip(prompts, lengths, strict=True)
    ]
    number = {prefix: i for i, prefix in enumerate(sorted(set(prefixes)))}
    return [number[prefix] for prefix in prefixes]


def policy_mask(batch: Batch) -> torch.Tensor:
    """The tokens that the policy sampled, (B, T): those of the completion that no tool wrote."""
    mask = batch["completion_mask"]
    return mask * batch["tool_mask"] if "tool_mask" in batch else mask


@dataclass(frozen=True)
class Pass:
    """Rows that go through the model together.

    Args:
        rows: Lengths and signal of each row, on the host.
        prompt_ids: (B, P), padded left.
        prompt_mask: (B, P).
        completion_ids: (B, T), padded right.
        completion_mask: (B, T), the tokens that the model attends to.
        policy_mask: (B, T), the tokens that the policy sampled; the loss runs over them.
        advantages: A, (B,).
        target_ratio: ρ*, (B,). TRL's own loss does not use it or the next three: 1, 0, 1 and 1.
        centred_advantages: Ã, (B,).
        row_weights: Factor of the summed token losses of each row, (B,).
        entropy_weights: Factor of the summed entropies of each row, (B,).
        old_logps: Log-probs under the policy that sampled, (B, T); None before the first forward pass finds them.
        ref_logps: Log-probs under the reference model, (B, T), or None.
        sampling_logps: Log-probs that vLLM reported, (B, T), or None.
        importance_ratio: vLLM's correction, (B, T) or (B, 1), or None.
        images: What a vision-language model needs beside the tokens, by TRL's names.
        idle: The pass only keeps this rank in step with the others. It counts in no loss and in no metric.
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
    importance_ratio: torch.Tensor | None
    images: Batch
    idle: bool = False

    @classmethod
    def from_batch(
        cls, batch: Batch, row_weights: torch.Tensor | None = None, entropy_weights: torch.Tensor | None = None
    ) -> "Pass":
        """All rows of a micro-batch of TRL; for GBPO it has `rows` and the targets beside TRL's own entries."""
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
            importance_ratio=batch.get("importance_sampling_ratio"),
            images={key: batch[key] for key in IMAGE_KEYS if key in batch},
        )

    def to(self, device: torch.device, **options: Any) -> "Pass":
        """The pass with its tensors on another device; `options` are those of `Tensor.to`."""
        return self._with_tensors(lambda name, tensor: tensor.to(device, **options))

    def take(self, numbers: Sequence[int], *, trim: bool) -> "Pass":
        """Some of the rows; where trimmed, as wide as the longest of their completions."""
        rows = tuple(self.rows[number] for number in numbers)
        available = self.completion_ids.size(1)
        width = max(1, *(row.completion for row in rows)) if trim else available

        def taken(name: str, value: torch.Tensor) -> torch.Tensor:
            per_token = value.ndim == 2 and value.size(1) == available and not name.startswith("prompt")
            return value[numbers, :width] if per_token else value[numbers]

        return replace(self._with_tensors(taken), rows=rows)

    def as_idle(self, *, trim: bool) -> "Pass":
        """The shortest row, of which no token counts."""
        lengths = [row.prompt + row.completion for row in self.rows]
        row = self.take([lengths.index(min(lengths))], trim=trim)
        return replace(row, idle=True, policy_mask=torch.zeros_like(row.policy_mask))

    def _with_tensors(self, change: Callable[[str, torch.Tensor], torch.Tensor]) -> "Pass":
        changed: dict[str, Any] = {
            name: change(name, value) for name, value in vars(self).items() if isinstance(value, torch.Tensor)
        }
        return replace(self, **changed)

    @staticmethod
    def joined(passes: "Sequence[Pass]") -> "Pass":
        """The rows of several passes of one generation as one pass."""
        one = passes[0]._with_tensors(lambda name, _: torch.cat([vars(some)[name] for some in passes]))
        return replace(one, rows=tuple(row for some in passes for row in some.rows))
