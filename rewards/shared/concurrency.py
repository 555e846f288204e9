"""Threads in which rewards grade, and the default number of workers."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any


async def run_in_thread(work: Callable[..., Any], *args: Any) -> Any:
    """Await `work(*args)` in a new thread, so that several rewards can grade at the same time.

    The thread is a daemon, unlike a thread of `asyncio.to_thread`: an interrupted run exits without waiting for it.

    >>> asyncio.run(run_in_thread(sum, [1, 2]))
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


def map_in_threads(work: Callable[[Any], Any], items: Sequence[Any], workers: int) -> list[Any]:
    """Apply `work` to each item in up to `workers` daemon threads.

    Returns:
        The results, in the order of the items.

    Raises:
        BaseException: The first error of `work`, after all threads have finished their current item.

    >>> map_in_threads(abs, [-1, 2, -3], workers=2)
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
    """This process's share of the CPUs of the machine, minus one for the trainer; at least 1.

    The CPUs are divided by `LOCAL_WORLD_SIZE`, the number of ranks on the machine.
    """
    processors = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, processors // int(os.environ.get("LOCAL_WORLD_SIZE", 1)) - 1)
