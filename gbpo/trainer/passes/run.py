"""`Scorer`: log-probs and entropies of completions in one forward pass, without TRL's padding."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from . import shared_prompts
from .batch import Row, prefix_numbers
from .capabilities import attends_backwards_only, decoder_of, has_rotary_embeddings
from .unpadded import ModelInputs, after_prefix, aligned_left, packed


@dataclass(frozen=True)
class Scorer:
    """Runs the model on the tokens of the rows and not on their padding. The scores are TRL's up to rounding.

    Args:
        accelerator: The trainer's.
        pack: Concatenate the rows of a pass (FlashAttention).
        share: Run a prompt once for all of its rows.
        relative_positions: The model's positions are relative, so rows may begin at their first token.
        causal: Tokens attend to nothing that follows them, so padding on the right needs no mask.
        multiple: Round the width up to a multiple of this.
    """

    accelerator: Accelerator
    pack: bool = False
    share: bool = False
    relative_positions: bool = False
    causal: bool = False
    multiple: int = 1

    @classmethod
    def of(cls, accelerator: Accelerator, config: Any, *, pack: bool, share: bool, multiple: int | None) -> "Scorer":
        """The scorer of a model with this configuration; it shares prompts where the layout allows it."""
        relative_positions, multiple = has_rotary_embeddings(config), multiple or 1
        return cls(
            accelerator,
            pack=pack,
            share=share and relative_positions and multiple == 1 and not pack,
            relative_positions=relative_positions,
            causal=attends_backwards_only(config),
            multiple=multiple,
        )

    def shares_in(self, model: nn.Module) -> bool:
        """Whether passes of this model share prompts now: checkpointed layers keep no keys and values."""
        return self.share and not self.accelerator.unwrap_model(model).is_activation_checkpointing

    def inputs(self, model: nn.Module, ids: torch.Tensor, prompt_width: int, rows: Sequence[Row]) -> ModelInputs:
        """Inputs of one forward pass.

        Args:
            model: The model, wrapped or not.
            ids: Token ids, (B, P + T): prompts padded left, completions padded right.
            prompt_width: P.
            rows: Lengths of the rows, which have at least one token of a prompt each.
        """
        if self.pack:
            return packed(ids, prompt_width, rows)
        if self.shares_in(model) and shared_prompts.pays(rows):
            width = max(row.prompt for row in rows) - 1
            prefixes = shared_prompts.prefixes_of(ids[:, :prompt_width], rows, width)
            with self.accelerator.autocast():  # not through DDP, whose ranks need not share alike
                past = shared_prompts.past(decoder_of(self.accelerator.unwrap_model(model)), *prefixes)
            return after_prefix(ids, prompt_width, rows, past)
        return aligned_left(
            ids,
            prompt_width,
            rows,
            masked=not (self.causal and self.relative_positions),
            from_column=None if self.relative_positions else 0,
            multiple=self.multiple,
        )

    def score(
        self, model: nn.Module, ids: torch.Tensor, prompt_width: int, rows: Sequence[Row], *, entropy: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Log-probs and, on request, entropies of the completions, each (B, T), 0 in padding; arguments as `inputs`."""
        inputs = self.inputs(model, ids, prompt_width, rows)
        with self.accelerator.autocast():
            outputs = model(**inputs.tokens, fused_lm_head=True)
        return inputs.placed(outputs.log_probs), inputs.placed(outputs.entropy) if entropy else None

    def score_in_batches(
        self, model: nn.Module, ids: torch.Tensor, mask: torch.Tensor, width: int, batch_size: int, *, entropy: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None] | None:
        """Scores of rows that TRL asks for, of which only tensors are known, in passes of similar lengths.

        Reads the lengths back from the device once.

        Args:
            model: The model, wrapped or not.
            ids: Token ids, (B, P + T).
            mask: Tokens that are attended to, (B, P + T).
            width: T.
            batch_size: Rows of a pass.
            entropy: Compute entropies too.

        Returns:
            Log-probs and entropies as `score`, or None if a row has no prompt or a gap between its tokens.
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
    """The lengths of rows; None if a row has no prompt, or other tokens than the last of P and the first of T."""
    attended = mask.bool()
    prompt, completion = attended[:, :prompt_width], attended[:, prompt_width:]
    whole = (prompt.int().diff(dim=1) >= 0).all(1) & (completion.int().diff(dim=1) <= 0).all(1)
    prompts, completions, unbroken = torch.stack([prompt.sum(1), completion.sum(1), whole.long()]).tolist()
    if not all(unbroken) or min(prompts) == 0:
        return None
    numbers = prefix_numbers(ids[:, :prompt_width].tolist(), prompts)
    return [Row(p, c, True, number) for p, c, number in zip(prompts, completions, numbers, strict=True)]
