"""Read the completions and reference answers of TRL's batch, and report statuses, metrics and rewards."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

Completion = str | list[dict[str, Any]]

# The reward of each status. 0.0: the model is at fault. None: the completion cannot be graded, and TRL leaves
# this reward out for it.
REWARDS: dict[str, float | None] = {
    "ok": 1.0,
    "wrong": 0.0,
    "unparsed": 0.0,  # the completion has no answer that can be read
    "timeout": 0.0,
    "died": 0.0,  # the process that graded this completion was killed
    "no_gold": None,  # the reference answer is missing or cannot be read
    "infra": None,  # the grader itself failed
}


def completion_text(completion: Completion) -> str:
    """The text of a completion: the string itself, or the content of the last assistant message.

    >>> completion_text([{"role": "assistant", "content": "57"}])
    '57'
    """
    if isinstance(completion, str):
        return completion
    replies = [message for message in completion if message["role"] == "assistant"]
    return (replies[-1].get("content") or "") if replies else ""  # a tool call has no content


def reference_text(reference: Any) -> str:
    """The reference answer as stripped text; empty if there is none.

    A float is written without an exponent: math parsers read the `e` of `1e-07` as Euler's number.

    >>> reference_text(" 57 "), reference_text(57), reference_text(1e-07), reference_text(None)
    ('57', '57', '0.0000001', '')
    """
    if isinstance(reference, float):
        return f"{Decimal(repr(reference)):f}" if math.isfinite(reference) else ""
    return str(reference).strip() if isinstance(reference, (str, int)) else ""


def report(
    reward_name: str,
    statuses: Sequence[str],
    log_extra: Callable[[str, list[str]], None] | None,
    log_metric: Callable[[str, float], None] | None,
    failure_hint: str = "",
    values: Sequence[float] | None = None,
    tolerated: float = 0.01,
) -> list[float | None]:
    """Log the statuses of a batch and convert them to rewards.

    Logs the column `<reward_name>/status` and, for every key of `REWARDS`, the metric
    `rewards/<reward_name>/<status>`: the fraction of the batch with this status, in [0, 1]. Statuses that did not
    occur are logged as 0, because all ranks must log the same metrics.

    Args:
        reward_name: The name of the reward.
        statuses: One key of `REWARDS` per completion.
        log_extra: TRL's function that logs a column, or None.
        log_metric: TRL's function that logs a scalar, or None.
        failure_hint: What to check if the grader fails. The error contains this hint.
        values: One reward per completion, used instead of `REWARDS[status]`. Where `REWARDS[status]` is None, the
            reward is still None.
        tolerated: The fraction of the batch that may have the status `infra`.

    Returns:
        One reward or None per completion.

    Raises:
        RuntimeError: More than this fraction of the batch has the status `infra`.

    >>> report("demo", ["ok", "wrong", "no_gold"], None, None)
    [1.0, 0.0, None]
    >>> report("demo", ["ok", "wrong", "no_gold"], None, None, values=[0.9, -0.5, 0.0])
    [0.9, -0.5, None]
    """
    counts, total = Counter(statuses), len(statuses)
    if log_extra is not None:
        log_extra(f"{reward_name}/status", list(statuses))
    if log_metric is not None and total:
        for status in REWARDS:
            log_metric(f"rewards/{reward_name}/{status}", counts[status] / total)
    if counts["infra"] > tolerated * total:
        raise RuntimeError(
            f"The reward {reward_name!r} could not grade {counts['infra']} of {total} completions because the grader "
            f"itself failed. Training stops here, because it would go on without these completions. {failure_hint}"
        )
    rewards = [REWARDS[status] for status in statuses]
    if values is None:
        return rewards
    return [None if reward is None else value for reward, value in zip(rewards, values, strict=True)]


def report_penalties(
    reward_name: str,
    values: Sequence[float],
    log_extra: Callable[[str, list[str]], None] | None,
    log_metric: Callable[[str, float], None] | None,
) -> list[float | None]:
    """Log and return penalties. The status is `ok` for a penalty of 0 and `wrong` for a negative one.

    >>> report_penalties("demo", [0.0, -0.5], None, None)
    [0.0, -0.5]
    """
    statuses = ["wrong" if value < 0 else "ok" for value in values]
    return report(reward_name, statuses, log_extra, log_metric, values=values)
