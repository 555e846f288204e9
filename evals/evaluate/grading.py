"""Grade completions with a reward."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from .completion import Completion


def grade(
    reward: Callable[..., Any], columns: dict[str, list[Any]], written: Sequence[Completion], **given: Any
) -> list[float | None]:
    """Grade completions, calling the reward with the same arguments as TRL does.

    Args:
        reward: The reward, which may be asynchronous.
        columns: Columns of the data set by name, including `prompt`. One row per completion.
        written: The completions.
        given: Further arguments.

    Returns:
        The reward of each completion. None for a completion that the reward leaves ungraded.

    Raises:
        ValueError: The reward returned the wrong number of scores, or an infinite score.
    """
    given |= {
        name: values for name, values in columns.items() if name not in ("prompt", "completion", "completion_ids")
    }
    prompts = columns["prompt"]
    chat = not isinstance(prompts[0], str)
    texts = [completion.text for completion in written]
    completions = [completion.messages for completion in written] if chat else texts
    rewards = reward(
        prompts=prompts,
        completions=completions,
        completion_ids=[completion.ids for completion in written],
        trainer_state=None,
        log_extra=lambda *args: None,
        log_metric=lambda *args: None,
        **given,
    )
    if inspect.isawaitable(rewards):
        rewards = asyncio.run(_await(rewards))
    if len(rewards) != len(texts):
        raise ValueError(
            f"The reward returned {len(rewards)} scores for {len(texts)} completions, so they cannot be matched. "
            "Return one score per completion."
        )
    wrong = next((value for value in rewards if value is not None and not hasattr(value, "__float__")), None)
    if wrong is not None:
        raise ValueError(
            f"The reward {getattr(reward, '__name__', reward)!r} returned {wrong!r}, so no mean can be computed. "
            "Return numbers, or None for a completion that cannot be graded."
        )
    infinite = next((row for row, value in enumerate(rewards) if value is not None and math.isinf(value)), None)
    if infinite is not None:
        raise ValueError(
            f"The reward {getattr(reward, '__name__', reward)!r} is {float(rewards[infinite])} for completion "
            f"{infinite}, {texts[infinite][:80]!r}, so no mean can be computed. Return finite numbers, or None for a "
            "completion that cannot be graded."
        )
    return [None if value is None or math.isnan(value) else float(value) for value in rewards]


async def _await(result: Any) -> Any:
    return await result
