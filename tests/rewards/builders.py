"""What several test files of the rewards build: programs, tests of programs, and runs on two ranks."""

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

from hypothesis import settings

import rewards

ROOT = Path(rewards.__file__).resolve().parents[1]

TOWER = r"\boxed{9^{9^{9^9}}}"  # keeps a worker of `math` busy until the soft limit
property_test = settings(max_examples=150, deadline=None, derandomize=True)


def worker_pids():
    """The process ids of all workers of this process."""
    return {child.pid for child in multiprocessing.active_children() if child.name == "pebble_pool_worker"}


def block(program):
    """A completion with a program."""
    return f"```python\n{program}\n```"


def stdin_tests(*cases):
    """Tests of a program that reads standard input, from pairs of input and output."""
    return {"type": "stdin", "cases": [{"input": text, "output": output} for text, output in cases]}


def call_tests(*cases, **more):
    """Tests of a function `f`, from pairs of arguments and expected value."""
    return {
        "type": "call",
        "fn_name": "f",
        "cases": [{"args": args, "expected": expected} for args, expected in cases],
    } | more


def run_on_two_ranks(script, *arguments):
    """Run a Python file on two ranks. Returns the JSON of the line that begins with RESULT."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, str(script), *map(json.dumps, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return json.loads(line.removeprefix("RESULT "))
