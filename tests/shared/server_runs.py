"""What tests read of the runs that use a vLLM server."""

import json
import time


def wait_until(condition, run, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert run.poll() is None, run.communicate()[1][-3000:]
        assert time.monotonic() < end
        time.sleep(0.05)


def rows(output):
    """The rows of `metrics.jsonl`; none if the file is not there yet."""
    metrics = output / "metrics.jsonl"
    return [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
