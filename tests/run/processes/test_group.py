"""`agreed`: a result or an error of the main process reaches every process."""

import os
import socket
import subprocess
import sys

import pytest

# each process prints what `agreed` returned or raised; the main process stays alive, so that no closed connection
# ends the other one
SCRIPT = """
import os, sys, threading, time
from accelerate import PartialState
from gbpo.run.processes.group import agreed

class Unpicklable(RuntimeError):
    def __init__(self, name, reason):
        super().__init__(f"{name}: {reason}")
        self.lock = threading.Lock()

class NeedsTwoArguments(RuntimeError):  # pickles, but cannot be unpickled
    def __init__(self, name, reason):
        super().__init__(f"{name}: {reason}")

def choose():
    return eval(sys.argv[1])

def fail(error):
    raise error

state = PartialState(cpu=True)
try:
    print("returned", agreed(choose), flush=True)
except BaseException as error:
    print("raised", type(error).__name__, error, flush=True)
    if state.is_main_process:
        time.sleep(3)
os._exit(0)  # how the process group is torn down is not the subject
"""

CASES = {
    "result": ("{'a': [1, None]}", ["returned {'a': [1, None]}"] * 2),
    "exception as a result": ("ValueError('kept')", ["returned kept"] * 2),
    "ValueError": ("fail(ValueError('bad field'))", ["raised ValueError bad field"] * 2),
    "OSError": ("fail(OSError(28, 'No space left'))", ["raised OSError [Errno 28] No space left"] * 2),
    "ImportError": ("fail(ImportError('no vllm'))", ["raised ImportError no vllm"] * 2),
    "exit": ("sys.exit(5)", ["raised SystemExit 5"] * 2),
    "unpicklable error": (
        "fail(Unpicklable('disk', 'gone'))",
        ["raised Unpicklable disk: gone", "raised RuntimeError Unpicklable: disk: gone"],
    ),
    "error that does not unpickle": (
        "fail(NeedsTwoArguments('disk', 'gone'))",
        ["raised NeedsTwoArguments disk: gone", "raised RuntimeError NeedsTwoArguments: disk: gone"],
    ),
}


def start(rank, port, script, *arguments):
    ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    env = os.environ | ranks | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def printed_by_two_processes(expression):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [start(rank, port, SCRIPT, expression) for rank in range(2)]
    try:
        outputs = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    return [out.strip() for out, _ in outputs]


@pytest.mark.parametrize("case", CASES)
def test_both_processes_get_the_result_or_the_error(case):
    expression, expected = CASES[case]
    assert printed_by_two_processes(expression) == expected


def test_an_unpicklable_result_ends_both_processes():
    for line in printed_by_two_processes("threading.Lock()"):
        assert line.startswith("raised TypeError cannot pickle")
