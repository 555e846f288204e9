"""`Scorer`: log-probs and entropies of completions in one forward pass, without TRL's padding."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from . import shared_prompts
from .batch import Row, prefix_numbers
from .capabilities import attends_backwards_only, decoder_of, has_rotary_embeddings
from .layout import rounded
from .unpadded import ModelInputs, after_prefix, aligned_left, packed


@dataclass(frozen=True)
class Scorer:
    """Runs the model on the rows without TRL's padding. Log-probs and entropies equal TRL's up to rounding.

    Args:
        accelerator: The accelerator of the trainer.
        pack: Whether to concatenate the rows of a pass (needs FlashAttention).
        share: Whether to run a prompt once for all of its rows.
        relative_positions: Whether the model's positions are relative, so that rows may begin at their first token.
        causal: Whether no token attends to a later token, so that padding on the right needs no mask.
        multiple: The width of a pass is rounded up to a multiple of this number.
        few_shapes: Whether widths are rounded up, so that the passes of a run have few shapes.
    """

    accelerator: Accelerator
    pack: bool = False
    share: bool = False
    relative_positions: bool = False
    causal: bool = False
    multiple: int = 1
    few_shapes: bool = False
    shapes: set[tuple[int, ...]] = field(default_factory=set, repr=False)  # of all passes of this process

    @classmethod
    def of(
        cls,
        accelerator: Accelerator,
        config: Any,
        *,
        pack: bool,
        share: bool,
        multiple: int | None,
        few_shapes: bool,
    ) -> "Scorer":
        """The scorer of a model with this configuration. It shares prompts only if the layout of the rows allows it."""
        relative_positions, multiple = has_rotary_embeddings(config), multiple or 1
        return cls(
            accelerator,
            pack=pack,
            share=share and relative_positions and multiple == 1 and not pack,
            relative_positions=relative_positions,
            causal=attends_backwards_only(config),
            multiple=multiple,
            few_shapes=few_shapes,
        )

    def shares_in(self, model: nn.Module) -> bool:
        """Whether passes share prompts now. They do not during activation checkpointing, which keeps no cache."""
        return self.share and not self.accelerator.unwrap_model(model).is_activation_checkpointing

    def inputs(self, model: nn.Module, ids: torch.Tensor, prompt_width: int, rows: Sequence[Row]) -> ModelInputs:
        """Inputs of one forward pass.

        Args:
            model: The model, wrapped or not.
            ids: Token ids, (B, P + T): prompts padded left, completions padded right.
            prompt_width: P.
            rows: Lengths of the rows. Every row has at least one prompt token.
        """
        if self.pack:
            return packed(ids, prompt_width, rows, few_shapes=self.few_shapes)
        if self.shares_in(model) and shared_prompts.pays(rows):
            width = max(row.prompt for row in rows) - 1
            width = min(int(rounded(width)), prompt_width - 1) if self.few_shapes else width
            prefixes = shared_prompts.prefixes_of(ids[:, :prompt_width], rows, width)
            # not through DDP, because some ranks may run this and others not
            past = shared_prompts.past(decoder_of(self.accelerator.unwrap_model(model)), *prefixes)
            return after_prefix(ids, prompt_width, rows, past, width, few_shapes=self.few_shapes)
        return aligned_left(
            ids,
            prompt_width,
            rows,
            masked=not (self.causal and self.relative_positions),
            from_column=None if self.relative_positions else 0,
            multiple=self.multiple,
            few_shapes=self.few_shapes,
        )

    def score(
        self, model: nn.Module, ids: torch.Tensor, prompt_width: int, rows: Sequence[Row], *, entropy: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Log-probs and, on request, entropies of the completions, (B, T), 0 in padding. For arguments see `inputs`."""
        # One region of autocast, so that each weight is cast once, for the prompts and for the completions.
        with self.accelerator.autocast():
            inputs = self.inputs(model, ids, prompt_width, rows)
            outputs = model(**inputs.tokens, fused_lm_head=True)
        self.shapes.add((*inputs.tokens["input_ids"].shape, *inputs.tokens.get("attention_mask", ids).shape[1:]))
        return inputs.placed(outputs.log_probs), inputs.placed(outputs.entropy) if entropy else None

    def score_in_batches(
        self, model: nn.Module, ids: torch.Tensor, mask: torch.Tensor, width: int, batch_size: int, *, entropy: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None] | None:
        """Score the rows that TRL passes as tensors, in passes of rows with similar lengths.

        This reads the lengths back from the device once.

        Args:
            model: The model, wrapped or not.
            ids: Token ids, (B, P + T).
            mask: Attention mask, (B, P + T).
            width: T.
            batch_size: Number of rows of a pass.
            entropy: Whether to compute entropies too.

        Returns:
            Log-probs and entropies as from `score`, or None if a row has no prompt or has padding between its tokens.
        """
        prompt_width = ids.size(1) - width
        rows = _rows_of(ids, mask, prompt_width)
        if rows is None:
            return None
        if batch_size >= len(rows):
            return self.score(model, ids, prompt_width, rows, entropy=entropy)
        order = sorted(range(len(rows)), key=lambda i: rows[i].prompt + rows[i].completion, reverse=True)
        parts = []
        for first in range(0, len(order), batch_size):
            numbers = order[first : first + batch_size]
            parts.append(self.score(model, ids[numbers], prompt_width, [rows[i] for i in numbers], entropy=entropy))
        back = sorted(range(len(order)), key=order.__getitem__)
        logps = torch.cat([some for some, _ in parts])[back]
        return logps, torch.cat([some for _, some in parts if some is not None])[back] if entropy else None


def _rows_of(ids: torch.Tensor, mask: torch.Tensor, prompt_width: int) -> list[Row] | None:
    """The lengths of rows; None if a row has no prompt or has padding between its tokens."""
    attended = mask.bool()
    prompt, completion = attended[:, :prompt_width], attended[:, prompt_width:]
    whole = (prompt.int().diff(dim=1) >= 0).all(1) & (completion.int().diff(dim=1) <= 0).all(1)
    prompts, completions, unbroken = torch.stack([prompt.sum(1), completion.sum(1), whole.long()]).tolist()
    if not all(unbroken) or min(prompts) == 0:
        return None
    numbers = prefix_numbers(ids[:, :prompt_width].tolist(), prompts)
    return [Row(p, c, True, number) for p, c, number in zip(prompts, completions, numbers, strict=True)]
