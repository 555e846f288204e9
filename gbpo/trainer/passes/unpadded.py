"""The inputs of a forward pass without TRL's padding: rows that begin at their first token, or packed rows.

TRL pads all rows to the widest prompt and the widest completion of a generation. The lengths of the rows are known on
the host, so all indices are computed there and nothing is read back from the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .batch import Row

_IGNORED = -100  # label of a token that is not scored


@dataclass(frozen=True)
class ModelInputs:
    """What the model is called with, and where its scores belong.

    Args:
        tokens: Keyword arguments of the model: `input_ids`, `labels` and what else the layout needs.
        places: Index of each completion token in the flattened log-probs of the model, (B, T).
        scored: Whether the completion has a token there, (B, T); False in padding.
    """

    tokens: dict[str, Any]
    places: torch.Tensor
    scored: torch.Tensor

    def placed(self, values: torch.Tensor) -> torch.Tensor:
        """Scores of the model, of any shape, as scores of the completions, (B, T); 0 in padding."""
        values = values.flatten()
        if not len(values):  # no token has one before it
            return values.sum() + values.new_zeros(self.places.shape)
        return values[self.places].masked_fill(~self.scored, 0.0)


def aligned_left(
    ids: torch.Tensor, prompt_width: int, rows: Sequence[Row], *, masked: bool, from_column: int | None, multiple: int
) -> ModelInputs:
    """One row of the model for each row, as wide as the longest.

    Args:
        ids: Token ids of prompts and completions, (B, P + T); prompts end and completions begin at column P.
        prompt_width: P.
        rows: Their lengths.
        masked: Pass an attention mask. Left-aligned rows of a causal model need none: padding lies to their right, and
            attention then runs its fastest kernel.
        from_column: Begin all rows at this column instead of at their first token, and keep the padding before it; for
            models with absolute positions.
        multiple: Round the width up to a multiple of this.
    """
    prompts, completions = _lengths(rows)
    first = prompt_width - prompts if from_column is None else np.full(len(rows), from_column)
    before = prompt_width - first  # columns up to the completion
    width = -(-int((before + completions).max()) // multiple) * multiple
    columns = np.arange(width)
    begins, ends = before[:, None], (before + completions)[:, None]
    device = ids.device
    input_ids = ids.gather(1, _tensor((first[:, None] + columns).clip(max=ids.size(1) - 1), device))
    tokens = {"input_ids": input_ids}
    if masked:
        tokens["attention_mask"] = _tensor((columns >= begins - prompts[:, None]) & (columns < ends), device).long()
    labelled = _tensor((columns >= begins) & (columns < ends), device)
    tokens["labels"] = input_ids.masked_fill(~labelled, _IGNORED)
    places = np.arange(len(rows))[:, None] * (width - 1) + begins - 1
    return _placed(tokens, places, completions, ids.size(1) - prompt_width)


def packed(ids: torch.Tensor, prompt_width: int, rows: Sequence[Row]) -> ModelInputs:
    """All rows concatenated into one, without padding; FlashAttention keeps them apart by their positions.

    Arguments as those of `aligned_left`. The borders of the rows are passed on too, so that transformers does not look
    for them in every layer.
    """
    prompts, completions = _lengths(rows)
    totals = prompts + completions
    ends = totals.cumsum()
    starts = ends - totals
    positions = np.arange(ends[-1]) - starts.repeat(totals)
    first = np.arange(len(rows)) * ids.size(1) + prompt_width - prompts  # in the flattened ids
    device = ids.device
    input_ids = ids.flatten()[_tensor(first.repeat(totals) + positions, device)].unsqueeze(0)  # (1, tokens)
    labelled = _tensor(positions >= prompts.repeat(totals), device)
    borders = _tensor(np.concatenate([[0], ends]).astype(np.int32), device)
    tokens = {
        "input_ids": input_ids,
        "labels": input_ids.masked_fill(~labelled, _IGNORED),
        "position_ids": _tensor(positions, device).unsqueeze(0),
        "cu_seq_lens_q": borders,
        "cu_seq_lens_k": borders,
        "max_length_q": int(totals.max()),
        "max_length_k": int(totals.max()),
    }
    return _placed(tokens, (starts + prompts - 1)[:, None], completions, ids.size(1) - prompt_width)


def after_prefix(ids: torch.Tensor, prompt_width: int, rows: Sequence[Row], past: Any) -> ModelInputs:
    """Rows from the last token of their prompt on, which attend to the keys and values of the prefix before it.

    Arguments as those of `aligned_left`; `past` is a cache of as many rows, as wide as the longest prefix.
    """
    prompts, completions = _lengths(rows)
    device, longest, width = ids.device, int(prompts.max()), 1 + int(completions.max())
    input_ids = ids[:, prompt_width - 1 : prompt_width - 1 + width]
    columns = np.arange(longest - 1 + width)  # of the cache, then of the rows
    attended = (columns >= (longest - prompts)[:, None]) & (columns < (longest + completions)[:, None])
    own = np.arange(width)
    positions = (prompts[:, None] - 1 + own).clip(max=(prompts + completions - 1)[:, None])
    labelled = _tensor((own >= 1) & (own <= completions[:, None]), device)
    tokens = {
        "input_ids": input_ids,
        "labels": input_ids.masked_fill(~labelled, _IGNORED),
        "attention_mask": _tensor(attended, device).long(),
        "position_ids": _tensor(positions, device),
        "past_key_values": past,
    }
    places = np.arange(len(rows))[:, None] * (width - 1)
    return _placed(tokens, places, completions, ids.size(1) - prompt_width)


def _lengths(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([row.prompt for row in rows]), np.array([row.completion for row in rows])


def _placed(tokens: dict[str, Any], first: np.ndarray, completions: np.ndarray, width: int) -> ModelInputs:
    """The inputs, with the places of completion tokens that begin at `first`, (B, 1)."""
    device, columns = tokens["input_ids"].device, np.arange(width)
    scored = columns < completions[:, None]
    places = np.where(scored, first + columns, 0)
    return ModelInputs(tokens, _tensor(places, device), _tensor(scored, device))


def _tensor(array: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)
