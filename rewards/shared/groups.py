"""Rewards that look at all completions of a prompt: the whole batch of all ranks, and who belongs together.

TRL hands each rank its own rows, and a prompt's completions may lie on several. These rewards are synchronous, so that
every rank meets the others in the same order.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Hashable, Iterable, Sequence
from typing import Any


def gather(rows: Sequence[Any]) -> tuple[list[Any], slice]:
    """The rows of all ranks in order, and where this rank's lie among them; rows must be picklable.

    >>> gather(["a", "b"])
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
    """Equal for equal prompts; text or messages."""
    return prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, default=str)


def members(keys: Iterable[Hashable]) -> list[list[int]]:
    """The places of equal keys, in the order of their first.

    >>> members(["p", "q", "p"])
    [[0, 2], [1]]
    """
    places: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    return list(places.values())
