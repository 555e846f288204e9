r"""Mathematical answers, compared by math-verify in worker processes that can be killed.

A completion is hostile input: `\boxed{9^{9^{9^9}}}` holds sympy for ever, and C code need not hear an alarm. So each
one is graded in a spawned worker with a memory limit. math-verify's own alarm stops what listens after `SOFT_LIMIT`;
Pebble kills the worker after `hard_limit`; only a status leaves it, never a sympy object, whose pickling or printing
can hang as well. Unix only.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify
from math_verify.errors import TimeoutException
from pebble import ProcessExpired, ProcessPool

from .batch import Completion, completion_text, gold_text, in_thread, report

SOFT_LIMIT = 1  # seconds for each of: read the gold, read the answer, compare. An int: a float limit parses nothing
MAX_BOX = 400  # characters of an answer; a longer box is refused unread
WORKER_TASKS = 5000  # completions before a worker is replaced, which bounds what sympy's caches hold
START_LIMIT = 120  # seconds without any result, beyond hard_limit, after which the workers count as lost

_GOLD = [LatexExtractionConfig(boxed_match_priority=0)]
_ANSWER = [LatexExtractionConfig(boxed_match_priority=0, try_extract_without_anchor=False)]
_DELIMITED = re.compile(r"(?<!\\)(?:\$|\\\(|\\\[|\\boxed)")  # an escaped \$ is a currency
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Math:
    r"""1.0 when the completion's boxed answer equals the gold as mathematics.

    Instances are their configuration: equal ones share one pool of workers in a process, started at the first batch,
    restarted for the next batch when it breaks, and ended by `close` or at exit. Batches of one process are graded
    one after another, from any thread. A script that uses this reward needs `if __name__ == "__main__":`, because
    every worker imports the main module anew. What is imported above that line is paid for at every start of a
    worker: with torch and trl, 475 MB instead of 65 and several seconds instead of one.

    Args:
        workers: Worker processes; by default the CPUs of this process over LOCAL_WORLD_SIZE, from 1 to 8.
        hard_limit: Seconds for one completion before its worker is killed; more than `3 * SOFT_LIMIT`.
        memory_mb: MiB that grading may take in each worker beyond what its imports take (Linux only).

    Columns read:
        solution: The gold: a number, or LaTeX, bare (`3\pi`), delimited (`$3\pi$`), or with a `\boxed{}`. None, NaN
            or blank text is no gold.

    Returns:
        Per completion: 1.0 (`ok`), 0.0 (`wrong`, `unparsed`, `timeout`, `died`) or None (`no_gold`, `infra`).

    Raises:
        ValueError: `solution` and `completions` differ in length, or an option is out of its range.
        RuntimeError: More than 1 % of a batch is `infra`: the workers cannot start, or break.

    Known limits, of math-verify; filter golds by them:
        - Numbers are compared to 6 decimals, absolute.
        - A percentage equals its number: 9 and 9%.
        - Units and number bases are dropped: 52_8 equals 52.
        - (1, 2) equals {1, 2}.
        - Of an equality, the last side counts.
        - Two boxes close together merge into a set.
        - "The final answer is $4$. I hope it is correct" ties with a box.
        - A gold that hangs a worker beyond the alarm is charged to the completion, as `timeout`.

    Asynchronous, so that TRL grades with it and with other rewards at the same time; in a script of your own:

    >>> import asyncio
    >>> asyncio.run(Math()([r"So it is \boxed{0.5}.", r"\boxed{\frac13}", "0.5"], solution=[r"\frac12"] * 3))
    [1.0, 0.0, 0.0]
    """

    workers: int | None = None
    hard_limit: float = 8.0
    memory_mb: int = 1024

    __name__ = "math"  # the name under which TRL logs an instance; not a field, having no annotation

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers={self.workers} leaves no process to grade in; give 1 or more, or None.")
        if self.hard_limit <= 3 * SOFT_LIMIT:
            raise ValueError(
                f"hard_limit={self.hard_limit} kills workers that the soft limit would have stopped, at a second each "
                f"for gold, answer and comparison; give more than {3 * SOFT_LIMIT} seconds."
            )
        if self.memory_mb < 1:
            raise ValueError(f"memory_mb={self.memory_mb} leaves no memory to grade in; the default is 1024.")

    async def __call__(
        self,
        completions: Sequence[Completion],
        *,
        solution: Sequence[Any],
        log_extra: Callable[[str, list[str]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """Grade a batch; the class says how."""
        statuses = await in_thread(self.grade, completions, solution)
        return report(self.__name__, statuses, log_extra, log_metric, self.check)

    @property
    def check(self) -> str:
        """What to look at when the workers fail; ends the error."""
        return (
            "Look for a worker's traceback on stderr; check that the script has `if __name__ == '__main__':`, that "
            f"the machine has memory for the workers ({self.memory_mb} MiB each beyond their imports), and that "
            "nothing kills them."
        )

    def grade(self, completions: Sequence[Completion], solution: Sequence[Any]) -> list[str]:
        r"""The status of each completion, a key of `rewards.batch.REWARDS`; for checks that need the reason.

        >>> Math().grade([r"\boxed{4}", "4", r"\boxed{4}"], [4, 4, None])
        ['ok', 'unparsed', 'no_gold']
        """
        pairs = [(completion_text(text), gold_text(gold)) for text, gold in zip(completions, solution, strict=True)]
        statuses = ["infra" if gold else "no_gold" for _, gold in pairs]
        with _one_batch:
            try:
                pool = self._pool()
                futures = {
                    row: pool.schedule(_grade, args=pair, timeout=self.hard_limit)
                    for row, pair in enumerate(pairs)
                    if statuses[row] == "infra"
                }
                _settle(pool, futures.values(), self.hard_limit + START_LIMIT)
            except (OSError, RuntimeError):
                logger.exception("The workers of %r failed.", self)
                self.close()
                return statuses
            except BaseException:  # Ctrl-C must not leave the rest of the batch to the workers
                self.close()
                raise
        return [_status(futures[row]) if row in futures else status for row, status in enumerate(statuses)]

    def close(self) -> None:
        """End the workers of this configuration; a later batch starts new ones."""
        pool = _pools.pop(self, None)
        if pool is not None:
            pool.stop()
            pool.join()

    def _pool(self) -> ProcessPool:
        pool = _pools.get(self)
        if pool is None or not pool.active:
            self.close()
            pool = _pools[self] = ProcessPool(
                max_workers=self.workers or _default_workers(),
                max_tasks=WORKER_TASKS,
                initializer=_start_worker,
                initargs=(self.memory_mb,),
                context=multiprocessing.get_context("spawn"),  # a process that holds CUDA must not fork
            )
        return pool


_pools: dict[Math, ProcessPool] = {}
_one_batch = threading.Lock()  # one batch at a time, so that no result for long means that the workers are lost


@atexit.register  # before Pebble's own hook, which ends workers that its threads may start again
def _close_all() -> None:
    for reward in list(_pools):
        reward.close()


def _after_fork() -> None:
    """The pools, and whoever holds the lock, stayed in the parent; ending its workers is not the child's to do."""
    global _one_batch
    _pools.clear()
    _one_batch = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def _default_workers() -> int:
    cpus = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(8, max(1, cpus // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))


def _settle(pool: ProcessPool, futures: Iterable[Future[str]], patience: float) -> None:
    """Wait until every future is done; RuntimeError when the pool cannot bring that about any more."""
    pending = set(futures)
    last_result = time.monotonic()
    while pending:
        done, pending = wait(pending, timeout=1)
        if done:
            last_result = time.monotonic()
        elif not pool.active:
            raise RuntimeError(f"The pool ended with {len(pending)} completions to grade.")
        elif time.monotonic() - last_result > patience:
            raise RuntimeError(f"No worker graded anything for {patience:.0f} seconds.")


def _status(future: Future[str]) -> str:
    try:
        return future.result()
    except ProcessExpired:
        return "died"
    except TimeoutError:
        return "timeout"
    except Exception:  # BrokenProcessPool, and whatever else no completion can cause
        return "infra"


# Below: what runs inside a worker.


def _start_worker(memory_mb: int) -> None:
    """Load what sympy loads at first use, which also proves that this worker can grade; then take the memory limit."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Pebble's handler would wait for C code to return
    if _grade(r"\boxed{\frac12x(x+1)}", "0.5x^2+0.5x", soft_limit=60) != "ok":
        raise RuntimeError("math-verify does not find x(x+1)/2 equal to 0.5x^2+0.5x in a new worker.")
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + memory_mb * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _grade(text: str, gold: str, soft_limit: int = SOFT_LIMIT) -> str:
    if not _DELIMITED.search(gold):
        gold = rf"\boxed{{{gold}}}"  # math-verify reads a bare 3\pi as 3, and a bare (2, 3) as 3
    box = last_box(text)
    if box and box == last_box(gold):
        return "ok"
    if box and len(box) > MAX_BOX:
        return "unparsed"
    fault = "no_gold"  # what an exception from here on means
    try:
        expected = parse(gold, _GOLD, "no_fallback", "first_match", soft_limit, raise_on_error=True)
        if not expected:
            return fault
        fault = "unparsed"
        answer = parse(text, _ANSWER, "no_fallback", "first_match", soft_limit, raise_on_error=True)
        if not answer:
            return fault
        fault = "wrong"
        same = verify(expected, answer, numeric_precision=50, timeout_seconds=soft_limit, raise_on_error=True)
        return "ok" if same else fault
    except TimeoutException:  # not an Exception
        return fault if fault == "no_gold" else "timeout"
    except MemoryError:
        os._exit(1)  # a worker this full could fail its next completion too
    except Exception:
        return fault


def last_box(text: str) -> str | None:
    r"""What the last `\boxed{}` of the text holds; None when there is none, or it is not closed.

    >>> last_box(r"\boxed{1}, no: \boxed{\{2, \frac{3}{4}\}}.")
    '\\{2, \\frac{3}{4}\\}'
    """
    start = text.rfind(r"\boxed{")
    if start < 0:
        return None
    start += len(r"\boxed{")
    depth = 1
    for token in _BRACES.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(token.group(), 0)
        if depth == 0:
            return text[start : token.start()].strip()
    return None
