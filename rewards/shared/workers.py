"""Worker processes that can be killed: for graders that hostile text can hang, or make take all memory.

Each task runs in a spawned process with a memory limit. Pebble kills the process after `hard_limit`, whatever C code it
is in. Only plain data may leave it, never an object of the grader's library, whose pickling or printing can hang as
well. Unix only.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
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

from pebble import ProcessExpired, ProcessPool

from .batch import default_workers

WORKER_TASKS = 5000  # tasks before a worker is replaced, which bounds what a library's caches hold
START_LIMIT = 120  # seconds without any result, beyond hard_limit, after which the workers count as lost

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workers:
    """A pool of worker processes; equal ones share one pool in a process.

    It is started at the first batch, restarted for the next batch when it breaks, and ended by `close` or at exit.
    Batches of one process are worked on one after another, from any thread. A script that uses it needs
    `if __name__ == "__main__":`, because every worker imports the main module anew. What is imported above that line is
    paid for at every start of a worker: with torch and trl, 475 MB instead of 65 and several seconds instead of one.

    Args:
        count: Worker processes; None: the processors of this process but one.
        hard_limit: Seconds for one task before its worker is killed.
        memory_mb: MiB that a worker may take beyond what `prepare` takes (Linux only).
        prepare: A function of a module, run first in each worker: loads what the tasks need and raises when it cannot.
    """

    count: int | None
    hard_limit: float
    memory_mb: int
    prepare: Callable[[], None]

    def run(self, work: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """`work(*a)` for each `a` in `arguments`, or the status of one that failed: `timeout`, `died` or `infra`.

        `infra`, for all of them, means that the workers themselves failed.
        """
        with _one_batch:
            try:
                pool = self._pool()
                futures = [pool.schedule(work, args=given, timeout=self.hard_limit) for given in arguments]
                _settle(pool, futures, self.hard_limit + START_LIMIT)
            except (OSError, RuntimeError):
                logger.exception("The workers of %r failed.", self)
                self.close()
                return ["infra"] * len(arguments)
            except BaseException:  # Ctrl-C must not leave the rest of the batch to the workers
                self.close()
                raise
        return [_result(future) for future in futures]

    def close(self) -> None:
        """End the workers; a later batch starts new ones."""
        pool = _pools.pop(self, None)
        if pool is not None:
            pool.stop()
            pool.join()

    @property
    def check(self) -> str:
        """What to look at when the workers fail; ends an error."""
        return (
            "Look for a worker's traceback on stderr; check that the script has `if __name__ == '__main__':`, that "
            f"the machine has memory for the workers ({self.memory_mb} MiB each beyond their imports), and that "
            "nothing kills them."
        )

    def _pool(self) -> ProcessPool:
        pool = _pools.get(self)
        if pool is None or not pool.active:
            self.close()
            pool = _pools[self] = ProcessPool(
                max_workers=self.count or default_workers(),
                max_tasks=WORKER_TASKS,
                initializer=_start,
                initargs=(self.prepare, self.memory_mb),
                context=multiprocessing.get_context("spawn"),  # a process that holds CUDA must not fork
            )
        return pool


_pools: dict[Workers, ProcessPool] = {}
_one_batch = threading.Lock()  # one batch at a time, so that no result for long means that the workers are lost


@atexit.register  # before Pebble's own hook, which ends workers that its threads may start again
def _close_all() -> None:
    for workers in list(_pools):
        workers.close()


def _after_fork() -> None:
    """The pools, and whoever holds the lock, stayed in the parent; ending its workers is not the child's to do."""
    global _one_batch
    _pools.clear()
    _one_batch = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def _settle(pool: ProcessPool, futures: Iterable[Future[Any]], patience: float) -> None:
    """Wait until every future is done; RuntimeError when the pool cannot bring that about any more."""
    pending = set(futures)
    last_result = time.monotonic()
    while pending:
        done, pending = wait(pending, timeout=1)
        if done:
            last_result = time.monotonic()
        elif not pool.active:
            raise RuntimeError(f"The pool ended with {len(pending)} tasks to do.")
        elif time.monotonic() - last_result > patience:
            raise RuntimeError(f"No worker did anything for {patience:.0f} seconds.")


def _result(future: Future[Any]) -> Any:
    try:
        return future.result()
    except ProcessExpired:
        return "died"
    except TimeoutError:
        return "timeout"
    except Exception:  # BrokenProcessPool, and whatever else no completion can cause
        return "infra"


def _start(prepare: Callable[[], None], memory_mb: int) -> None:
    """In a new worker: load what the tasks need, then take the memory limit."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Pebble's handler would wait for C code to return
    prepare()
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + memory_mb * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
