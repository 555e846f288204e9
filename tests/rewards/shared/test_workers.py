"""Worker processes, tested through the reward `math`: limits, failures, restarts and the end."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pebble
import pytest

from rewards.answers.math_answer import Math
from rewards.shared.workers import _settle
from tests.rewards.builders import ROOT, TOWER, worker_pids

KILL_TIME = 4  # seconds that Pebble may take to end a worker past its limit, and a busy machine to notice


@pytest.fixture
def alone():
    """A reward with one worker of its own, already started, and the worker's pid."""
    others = worker_pids()
    reward = Math(workers=1, hard_limit=3.5)
    assert reward.grade([r"\boxed{4}"], [4]) == ["ok"]
    (pid,) = worker_pids() - others
    yield reward, pid
    reward.close()


def gone(pid, patience=5.0):
    """Whether the process ends within `patience` seconds."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def in_thread(reward, completions):
    """Start to grade against the gold 4 in another thread, and be half a second into it."""
    thread = ThreadPoolExecutor(1)
    future = thread.submit(reward.grade, completions, [4] * len(completions))
    thread.shutdown(wait=False)
    time.sleep(0.5)
    return future


def test_a_killed_worker_costs_its_own_completion_only(alone):
    reward, pid = alone
    grading = in_thread(reward, [TOWER, TOWER, TOWER, r"\boxed{4}"])
    os.kill(pid, signal.SIGKILL)
    statuses = grading.result(30)
    assert sorted(statuses[:3]) == ["died", "timeout", "timeout"] and statuses[3] == "ok"


def test_a_worker_deaf_to_the_soft_limit_is_killed_at_the_hard_one(alone):
    reward, pid = alone
    start = time.monotonic()
    grading = in_thread(reward, [TOWER, r"\boxed{4}"])
    os.kill(pid, signal.SIGSTOP)  # it hears neither its alarm nor SIGTERM
    assert grading.result(30) == ["timeout", "ok"]
    assert reward.hard_limit < time.monotonic() - start < reward.hard_limit + 3 + KILL_TIME
    assert gone(pid, 0.1)


def test_a_pool_whose_idle_worker_died_is_replaced_before_the_next_batch(alone):
    reward, pid = alone
    os.kill(pid, signal.SIGKILL)
    assert gone(pid)
    time.sleep(0.3)  # Pebble finds it out
    assert asyncio.run(reward([r"\boxed{4}"], solution=[4])) == [1.0]


def test_workers_that_never_take_a_completion_are_given_up_and_replaced(alone, monkeypatch):
    reward, pid = alone
    monkeypatch.setattr("rewards.shared.workers.START_LIMIT", -3)  # half a second in all
    os.kill(pid, signal.SIGSTOP)
    assert reward.grade([r"\boxed{4}"], [4]) == ["infra"]
    monkeypatch.undo()
    assert gone(pid)
    assert reward.grade([r"\boxed{4}"], [4]) == ["ok"]


def test_closing_ends_the_workers_and_leaves_no_batch_waiting(alone):
    reward, pid = alone
    grading = in_thread(reward, [TOWER] * 20)
    reward.close()
    assert "infra" in grading.result(10)
    assert gone(pid)
    reward.close()  # twice is no error
    assert reward.grade([r"\boxed{4}"], [4]) == ["ok"]


def test_an_interrupt_ends_the_batch(alone):
    reward, pid = alone
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            reward.grade([TOWER] * 20, [4] * 20)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert gone(pid)
    assert reward.grade([r"\boxed{4}"], [4]) == ["ok"]


def test_workers_are_replaced_in_the_middle_of_a_batch(monkeypatch):
    monkeypatch.setattr("rewards.shared.workers.WORKER_TASKS", 2)
    reward = Math(workers=1, memory_mb=1001)
    others = worker_pids()
    assert reward.grade([r"\boxed{4}", r"\boxed{5}"] * 2 + [r"\boxed{4.0}"], [4] * 5) == ["ok", "wrong"] * 2 + ["ok"]
    (first,) = worker_pids() - others
    assert reward.grade([r"\boxed{4}"], [4]) == ["ok"]
    assert gone(first)
    reward.close()


def test_a_batch_goes_on_while_results_come():
    first, last = Future(), Future()
    for future, delay in ((first, 0.5), (last, 2.5)):
        threading.Timer(delay, future.set_result, ["ok"]).start()
    _settle(SimpleNamespace(active=True), [first, last], patience=1.5)
    assert first.done() and last.done()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_is_spawned_has_a_memory_limit_and_dies_of_sigterm_whatever_it_computes(alone):
    import resource

    _, pid = alone
    assert "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()
    soft, hard = resource.prlimit(pid, resource.RLIMIT_AS)
    assert 2**30 < soft == hard < 2**31  # 1024 MiB and the imports
    status = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    caught_or_ignored = int(status["SigCgt"], 16) | int(status["SigIgn"], 16)
    assert not caught_or_ignored & 1 << (signal.SIGTERM - 1)


def test_threads_that_come_first_together_start_one_pool(monkeypatch):
    class SlowPool(pebble.ProcessPool):
        def __init__(self, **config):
            time.sleep(0.3)
            super().__init__(**config)

    monkeypatch.setattr("rewards.shared.workers.ProcessPool", SlowPool)
    reward = Math(workers=1, memory_mb=1002)
    others = worker_pids()
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(reward.grade, [[r"\boxed{4}"]] * 2, [[4]] * 2)) == [["ok"], ["ok"]]
    assert len(worker_pids() - others) == 1
    reward.close()


SCRIPT = """
import atexit, multiprocessing, sys
import pebble  # registers its exit hook first, so that it runs last
from {package} import get_reward

def count_workers():
    print(len(multiprocessing.active_children()))

if __name__ == "__main__":
    atexit.register(count_workers)
    statuses = get_reward("math", workers=1).grade([r"\\boxed{{4.0}}", r"\\boxed{{5}}"], [4, 4])
    print(*statuses, "gbpo" in sys.modules, *[child.pid for child in multiprocessing.active_children()])
"""


def test_processes_grade_at_once_under_any_package_name_and_leave_no_worker(tmp_path):
    shutil.copytree(ROOT / "rewards", tmp_path / "renamed", ignore=shutil.ignore_patterns("__pycache__"))
    processes = []
    for package, path in (("rewards", ROOT), ("renamed", tmp_path)):
        script = tmp_path / f"with_{package}.py"
        script.write_text(SCRIPT.format(package=package))
        environment = {**os.environ, "PYTHONPATH": str(path)}
        command = [sys.executable, str(script)]
        processes.append(subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True))
    for process in processes:
        output, _ = process.communicate(timeout=60)
        *line, pid, workers_left = output.split()
        assert (line, workers_left, process.returncode) == (["ok", "wrong", "False"], "0", 0)
        assert gone(int(pid))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_grades_with_its_own_workers_and_leaves_its_parents_alone(alone):
    reward, pid = alone
    child = os.fork()
    if child == 0:
        graded = reward.grade([r"\boxed{4.0}"], [4]) == ["ok"]
        reward.close()
        os._exit(0 if graded else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert not gone(pid, 0.3)
    assert reward.grade([r"\boxed{4.0}"], [4]) == ["ok"]
