"""A limit of CPU time that means the same on a slow machine and on a fast one."""

import contextlib
import json
import time

FAST = 0.1


def _pace():
    """Seconds of CPU time to parse 4 MB of JSON in this process, whose size decides what garbage collection costs."""
    text = json.dumps([[{"tuple": [1, {"int": hex(n)}]}, 1] for n in range(100_000)])
    start = time.process_time()
    json.loads(text)
    return time.process_time() - start


@contextlib.contextmanager
def cpu_limit(paces):
    """Fails if the block takes more than `paces` times as long as parsing 4 MB of JSON, which takes 0.1 to 0.4 s."""
    start = time.process_time()
    yield
    used = time.process_time() - start
    if used > paces * FAST:  # the pace is measured only where it decides
        limit = paces * max(_pace() for _ in range(3))  # the pace of a busy machine varies
        assert used < limit, f"{used:.1f} s of CPU time, and at most {limit:.1f} s were allowed"
