"""Worker processes that can be killed. Graders run in them, because hostile text can make a grader hang.

Each task runs in a spawned process with a memory limit. The package Pebble kills the process after `hard_limit`, even
while it runs C code. Tasks must return plain data: pickling or printing an object of the grader's library could hang as
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
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool

from .concurrency import default_workers

WORKER_TASKS = 5000  # tasks before a worker is replaced; this limits the caches of the grader's library
START_LIMIT = 120  # the workers have failed if they return no result for hard_limit plus this many seconds

_NO_MAIN_GUARD = 79  # exit code of a process in which the import of the main module wants to start workers

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workers:
    """A pool of worker processes. Equal instances share one pool per process.

    The pool starts with the first batch and ends with `close` or at exit. If the pool breaks, the next batch
    starts a new pool. Each process grades one batch at a time; its threads wait for each other.

    A script that uses workers needs `if __name__ == "__main__":`, because every worker imports the main module again.
    Imports above that line slow down each worker: if they include torch and trl, a worker takes 475 MB of memory
    instead of 65 MB, and starts in several seconds instead of one second.

    Args:
        count: Number of worker processes. None: the result of `default_workers()`.
        hard_limit: Seconds for one task before its worker is killed.
        memory_mb: MiB that a worker may use in addition to the memory it uses after `prepare` (Linux only).
        prepare: A module-level function that each worker calls first. It loads what the tasks need, or raises.
    """

    count: int | None
    hard_limit: float
    memory_mb: int
    prepare: Callable[[], None]

    def run(self, work: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call `work(*a)` for each `a` in `arguments`.

        Returns:
            One result per call, or the status of a call that failed: `timeout`, `died` or `infra`. If the workers
            themselves fail, all calls have the status `infra`.

        Raises:
            RuntimeError: The main module calls this without a guard, so that no worker can import it.
        """
        if getattr(multiprocessing.current_process(), "_inheriting", False):  # a worker that imports the main module
            os._exit(_NO_MAIN_GUARD)
        with _one_batch:
            try:
                pool = self._pool()
                futures = [pool.schedule(work, args=given, timeout=self.hard_limit) for given in arguments]
                _settle(pool, futures, self.hard_limit + START_LIMIT)
            except (OSError, RuntimeError):
                self.close()
                _check_main_guard()
                logger.exception("The workers of %r failed.", self)
                return ["infra"] * len(arguments)
            except BaseException:  # after Ctrl-C the workers must not go on with the batch
                self.close()
                raise
            results = [_result(future) for future in futures]
            if "infra" in results:
                _check_main_guard()
        return results

    def close(self) -> None:
        """Stop the workers. A later batch starts new ones."""
        pool = _pools.pop(self, None)
        if pool is not None:
            pool.stop()
            pool.join()

    @property
    def failure_hint(self) -> str:
        """What to check if the workers fail. It is added to errors."""
        return (
            "Look for a worker's traceback on stderr. Check that the script has `if __name__ == '__main__':`, that "
            f"the machine has memory for the workers ({self.memory_mb} MiB each in addition to their imports), and "
            "that no other program kills them."
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
                context=multiprocessing.get_context("spawn"),  # a process that uses CUDA must not fork
            )
            # multiprocessing ends its own processes without exit hooks, but waits there for their children
            Finalize(None, self.close, exitpriority=0)
        return pool


_pools: dict[Workers, ProcessPool] = {}
# With one batch at a time, a long time without results means that the workers have failed.
_one_batch = threading.Lock()


@atexit.register  # runs before Pebble's exit hook; after Pebble's hook, Pebble's threads could start workers again
def _close_all() -> None:
    for workers in list(_pools):
        workers.close()


def _after_fork() -> None:
    """Forget the parent's pools and replace the lock: the threads that use them exist only in the parent process."""
    global _one_batch
    _pools.clear()
    _one_batch = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def _check_main_guard() -> None:
    """Raise RuntimeError if a new process cannot import the main module, because the module itself grades."""
    probe = multiprocessing.get_context("spawn").Process(target=_nothing, daemon=True)
    probe.start()
    probe.join(START_LIMIT)
    code = probe.exitcode
    probe.kill()
    if code == _NO_MAIN_GUARD:
        sys.tracebacklimit = 0  # the message says everything, so Python prints only this line
        raise RuntimeError(
            f"{getattr(sys.modules['__main__'], '__file__', 'The main module')!r} grades while it is imported, so the "
            "workers that import it again cannot start. Put the lines that grade or train below `if __name__ == "
            '"__main__":`.'
        ) from None


def _nothing() -> None:
    """Do nothing, in a process that has imported the main module."""


def _settle(pool: ProcessPool, futures: Iterable[Future[Any]], patience: float) -> None:
    """Wait for all futures. Raises RuntimeError if the pool ends, or returns no result for `patience` seconds."""
    pending = set(futures)
    last_result = time.monotonic()
    while pending:
        done, pending = wait(pending, timeout=1)
        if done:
            last_result = time.monotonic()
        elif not pool.active:
            raise RuntimeError(f"The pool ended before {len(pending)} tasks were done.")
        elif time.monotonic() - last_result > patience:
            raise RuntimeError(f"No worker returned a result for {patience:.0f} seconds.")


def _result(future: Future[Any]) -> Any:
    try:
        return future.result()
    except ProcessExpired:
        return "died"
    except TimeoutError:
        return "timeout"
    except Exception:  # for example BrokenProcessPool, which no completion can cause
        return "infra"


def _start(prepare: Callable[[], None], memory_mb: int) -> None:
    """Start a new worker: load what the tasks need, then set the memory limit."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Pebble's handler waits until C code returns
    prepare()
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + memory_mb * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
