"""Batches of token sequences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from tqdm.auto import tqdm


def batches(order: Sequence[int], size: int, description: str) -> Iterator[list[int]]:
    """Split indices into batches and show a progress bar.

    Args:
        order: Indices in the order in which they are batched.
        size: Maximum number of indices per batch.
        description: Text of the progress bar.
    """
    with tqdm(total=len(order), desc=description, unit="completion", leave=False, disable=None) as bar:
        for start in range(0, len(order), size):
            batch = list(order[start : start + size])
            yield batch
            bar.update(len(batch))


def pad(rows: Sequence[list[int]], side: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad token sequences to the length of the longest.

    Args:
        rows: Token ids of each sequence.
        side: Side of the padding, `"left"` or `"right"`.
        device: Device of the result.

    Returns:
        Token ids and attention mask, both (sequences, longest sequence). Padding has token id 0.
    """
    tokens = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, 0, side)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], True, 0, side)
    return tokens.to(device), mask.to(device)
