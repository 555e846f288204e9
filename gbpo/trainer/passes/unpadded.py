"""The inputs of a forward pass without TRL's padding: rows that begin at their first token, or packed rows.

TRL pads all rows to the longest prompt and the longest completion of a generation. The lengths of the rows are known on
the CPU, so the CPU computes all indices, and nothing is read back from the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .batch import Row
from .capabilities import CACHE
from .layout import rounded

_IGNORED = -100  # label of a token that is not scored


@dataclass(frozen=True)
class ModelInputs:
    """Inputs of the model, and the position of each completion token in the model's output.

    Args:
        tokens: Keyword arguments of the model: `input_ids`, `labels` and what else the layout needs.
        places: Index of each completion token in the flattened log-probs of the model, (B, T).
        scored: True for tokens of a completion, False for padding, (B, T).
    """

    tokens: dict[str, Any]
    places: torch.Tensor
    scored: torch.Tensor

    def placed(self, values: torch.Tensor) -> torch.Tensor:
        """Rearrange the model's log-probs or entropies, of any shape, into (B, T), with 0 in padding."""
        values = values.flatten()
        if not len(values):  # every row has a single token, so the model predicts none
            return values.sum() + values.new_zeros(self.places.shape)
        return values[self.places].masked_fill(~self.scored, 0.0)


def aligned_left(
    ids: torch.Tensor,
    prompt_width: int,
    rows: Sequence[Row],
    *,
    masked: bool,
    from_column: int | None,
    multiple: int,
    few_shapes: bool,
) -> ModelInputs:
    """Inputs of shape (B, width), where every row begins at its first token and the width is that of the longest row.

    Args:
        ids: Token ids of prompts and completions, (B, P + T). Prompts end before column P, where completions begin.
        prompt_width: P.
        rows: Lengths of the rows.
        masked: Whether to pass an attention mask. A causal model needs none, because all padding is to the right of
            the tokens. Without a mask, attention can run its fastest kernel.
        from_column: Begin all rows at this column of `ids` instead of at their first token, and keep the padding
            between this column and the first token. Models with absolute positions need this.
        multiple: The width is rounded up to a multiple of this number.
        few_shapes: Whether the width is also rounded up to one of few values.
    """
    prompts, completions = _lengths(rows)
    first = prompt_width - prompts if from_column is None else np.full(len(rows), from_column)
    before = prompt_width - first  # columns up to the completion
    width = int((before + completions).max())
    width = -(-int(rounded(width) if few_shapes else width) // multiple) * multiple
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


def packed(ids: torch.Tensor, prompt_width: int, rows: Sequence[Row], *, few_shapes: bool) -> ModelInputs:
    """All rows concatenated into one, without padding. FlashAttention separates the rows by their borders.

    The model gets the borders of the rows and the length of the longest row. From position ids alone, transformers
    would compute both in every layer, and wait for the device each time.

    The arguments are those of `aligned_left`. With `few_shapes`, a row of padding at the end rounds up the number of
    tokens.
    """
    prompts, completions = _lengths(rows)
    totals = prompts + completions
    first = np.arange(len(rows)) * ids.size(1) + prompt_width - prompts  # in the flattened ids
    padding = rounded(totals.sum()) - totals.sum() if few_shapes else 0
    if padding:
        totals, first = np.append(totals, padding), np.append(first, 0)
    ends = totals.cumsum()
    starts = ends - totals
    positions = np.arange(ends[-1]) - starts.repeat(totals)
    longest = int(rounded(totals.max()) if few_shapes else totals.max())
    device = ids.device
    input_ids = ids.flatten()[_tensor(first.repeat(totals) + positions, device)].unsqueeze(0)  # (1, tokens)
    labelled = _tensor(positions >= np.append(prompts, padding)[: len(totals)].repeat(totals), device)
    borders = _tensor(np.concatenate([[0], ends]).astype(np.int32), device)
    tokens = {
        "input_ids": input_ids,
        "labels": input_ids.masked_fill(~labelled, _IGNORED),
        "position_ids": _tensor(positions, device).unsqueeze(0),
        "cu_seq_lens_q": borders,
        "cu_seq_lens_k": borders,
        "max_length_q": longest,
        "max_length_k": longest,
    }
    return _placed(tokens, (starts[: len(rows)] + prompts - 1)[:, None], completions, ids.size(1) - prompt_width)


def after_prefix(
    ids: torch.Tensor, prompt_width: int, rows: Sequence[Row], past: Any, prefix_width: int, *, few_shapes: bool
) -> ModelInputs:
    """Rows that begin at the last token of their prompt and attend to the cached keys and values of the earlier ones.

    The arguments are those of `aligned_left`. `past` is a cache with the same number of rows and with `prefix_width`
    columns, in which the prefixes are on the right.
    """
    prompts, completions = _lengths(rows)
    device, longest = ids.device, prefix_width + 1
    width = 1 + int(completions.max())
    width = min(int(rounded(width)), 1 + ids.size(1) - prompt_width) if few_shapes else width
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
        CACHE: past,
    }
    places = np.arange(len(rows))[:, None] * (width - 1)
    return _placed(tokens, places, completions, ids.size(1) - prompt_width)


def _lengths(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([row.prompt for row in rows]), np.array([row.completion for row in rows])


def _placed(tokens: dict[str, Any], first: np.ndarray, completions: np.ndarray, width: int) -> ModelInputs:
    """`ModelInputs` whose completions begin at the indices `first`, (B, 1), of the flattened log-probs."""
    device, columns = tokens["input_ids"].device, np.arange(width)
    scored = columns < completions[:, None]
    places = np.where(scored, first + columns, 0)
    return ModelInputs(tokens, _tensor(places, device), _tensor(scored, device))


def _tensor(array: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)
