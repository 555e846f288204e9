"""What every reward reads from TRL's batch, and what it reports back."""

from __future__ import annotations

import asyncio
import math
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from decimal import Decimal
from typing import Any

Completion = str | list[dict[str, Any]]

# What each status pays. 0.0 is the model's fault; None is not, and TRL leaves such a completion out.
REWARDS: dict[str, float | None] = {
    "ok": 1.0,
    "wrong": 0.0,
    "unparsed": 0.0,  # no answer could be read from the completion
    "timeout": 0.0,
    "died": 0.0,  # grading this completion killed the process that did it
    "no_gold": None,  # the gold is missing, or cannot be read
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


def gold_text(gold: Any) -> str:
    """The gold as stripped text; empty when there is none.

    A float is written without an exponent, which a mathematical parser would read as a product with e.

    >>> gold_text(" 57 "), gold_text(57), gold_text(1e-07), gold_text(None), gold_text(float("nan"))
    ('57', '57', '0.0000001', '', '')
    """
    if isinstance(gold, float):
        return f"{Decimal(repr(gold)):f}" if math.isfinite(gold) else ""
    return str(gold).strip() if isinstance(gold, (str, int)) else ""


async def in_thread(work: Callable[..., Any], *args: Any) -> Any:
    """Await `work(*args)` in a thread of its own, so that rewards of different kinds grade at the same time.

    Unlike `asyncio.to_thread`'s, the thread is a daemon: an interrupted run does not wait for its batch.

    >>> asyncio.run(in_thread(sum, [1, 2]))
    3
    """
    outcome: Future[Any] = Future()

    def run() -> None:
        try:
            outcome.set_result(work(*args))
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name=f"reward {getattr(work, '__qualname__', work)}", daemon=True).start()
    return await asyncio.wrap_future(outcome)


def in_threads(work: Callable[[Any], Any], items: Sequence[Any], workers: int) -> list[Any]:
    """`work` of each item, in the order of the items; the first error is raised once no item is being worked on.

    The threads are daemons, for the reason given at `in_thread`.

    >>> in_threads(abs, [-1, 2, -3], workers=2)
    [1, 2, 3]
    """
    results: list[Any] = [None] * len(items)
    errors: list[BaseException] = []
    places = iter(range(len(items)))
    lock = threading.Lock()

    def run() -> None:
        while not errors:
            with lock:
                place = next(places, None)
            if place is None:
                return
            try:
                results[place] = work(items[place])
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(min(workers, len(items)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def default_workers() -> int:
    """The processors of this process, shared with the other ranks of its machine, but one; at least 1."""
    processors = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, processors // int(os.environ.get("LOCAL_WORLD_SIZE", 1)) - 1)


def report(
    family: str,
    statuses: Sequence[str],
    log_extra: Callable[[str, list[str]], None] | None,
    log_metric: Callable[[str, float], None] | None,
    check: str = "",
    values: Sequence[float] | None = None,
) -> list[float | None]:
    """Log the statuses of a batch and turn them into rewards.

    Logs the column `<family>/status` and, for every status of `REWARDS` whether it occurred or not (ranks must agree
    on the names), the metric `rewards/<family>/<status>`: its share of the batch, in [0, 1].

    Args:
        family: The reward's name.
        statuses: One key of `REWARDS` per completion.
        log_extra: TRL's callable for a column, or None.
        log_metric: TRL's callable for a scalar, or None.
        check: What to look at when the grader itself fails; ends the error.
        values: What each completion earns where its status does not say it; a status of None stays None.

    Raises:
        RuntimeError: More than 1 % of the batch is `infra`.

    >>> report("demo", ["ok", "wrong", "no_gold"], None, None)
    [1.0, 0.0, None]
    >>> report("demo", ["ok", "wrong", "no_gold"], None, None, values=[0.9, -0.5, 0.0])
    [0.9, -0.5, None]
    """
    counts, total = Counter(statuses), len(statuses)
    if log_extra is not None:
        log_extra(f"{family}/status", list(statuses))
    if log_metric is not None and total:
        for status in REWARDS:
            log_metric(f"rewards/{family}/{status}", counts[status] / total)
    if counts["infra"] > 0.01 * total:
        raise RuntimeError(
            f"The reward {family!r} could not grade {counts['infra']} of {total} completions because the grader "
            f"itself failed, not the model. Training would go on with holes in its batches, so it stops here. {check}"
        )
    earned = [REWARDS[status] for status in statuses]
    if values is None:
        return earned
    return [None if reward is None else value for reward, value in zip(earned, values, strict=True)]
