"""The rows of all ranks, grouped by prompt, for rewards that compare the completions of a prompt.

TRL gives each rank its own rows, and the completions of a prompt may be on several ranks. Rewards that call
`gather_rows` must be synchronous, so that all ranks call it in the same order.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Hashable, Iterable, Sequence
from hashlib import sha256
from typing import Any


def gather_rows(rows: Sequence[Any]) -> tuple[list[Any], slice]:
    """Collect the rows of all ranks.

    Args:
        rows: The rows of this rank; picklable.

    Returns:
        The rows of all ranks in the order of the ranks, and the slice of them that belongs to this rank.

    >>> gather_rows(["a", "b"])
    (['a', 'b'], slice(0, 2, None))
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return list(rows), slice(0, len(rows))
    parts: list[list[Any]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(parts, list(rows))
    first = sum(len(part) for part in parts[: distributed.get_rank()])
    return [row for part in parts for row in part], slice(first, first + len(rows))


def prompt_key(prompt: str | list[dict[str, Any]]) -> str:
    """A string that is equal for equal prompts. A prompt is text or a list of messages, which may contain images."""
    return prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, default=_as_text)


def _as_text(value: Any) -> str:
    """A text for a value that is not JSON. It is equal for equal images; the text of Pillow differs with each copy."""
    if not hasattr(value, "tobytes"):
        return str(value)
    return f"{value.mode} {value.size} {sha256(value.tobytes()).hexdigest()}"


def group_rows(keys: Iterable[Hashable]) -> list[list[int]]:
    """The row numbers of each distinct key, in the order in which the keys first occur.

    >>> group_rows(["p", "q", "p"])
    [[0, 2], [1]]
    """
    rows: dict[Hashable, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    return list(rows.values())
