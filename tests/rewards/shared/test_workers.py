"""Worker processes, tested through the reward `math`: limits, failures, restarts and shutdown."""

import asyncio
import multiprocessing
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

KILL_TIME = 4  # seconds that Pebble may take to kill a worker after its limit, on a busy machine


@pytest.fixture
def one_worker():
    """A reward with its own worker, which has started, and the process id of the worker."""
    others = worker_pids()
    reward = Math(workers=1, hard_limit=3.5)
    assert reward.grade([r"\boxed{4}"], [4]) == ["ok"]
    (pid,) = worker_pids() - others
    yield reward, pid
    reward.close()


def ends(pid, patience=15.0):
    """Whether the process ends within `patience` seconds."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def start_grading(reward, completions):
    """Start grading with the reference answer 4 in another thread, and wait half a second."""
    thread = ThreadPoolExecutor(1)
    future = thread.submit(reward.grade, completions, [4] * len(completions))
    thread.shutdown(wait=False)
    time.sleep(0.5)
    return future


def test_a_killed_worker_affects_only_its_current_completion(one_worker):
    reward, pid = one_worker
    grading = start_grading(reward, [TOWER, TOWER, TOWER, r"\boxed{4}"])
    os.kill(pid, signal.SIGKILL)
    statuses = grading.result(30)
    assert sorted(statuses[:3]) == ["died", "timeout", "timeout"] and statuses[3] == "ok"


def test_a_worker_that_ignores_the_soft_limit_is_killed_at_the_hard_limit(one_worker):
    reward, pid = one_worker
    start = time.monotonic()
    grading = start_grading(reward, [TOWER, r"\boxed{4}"])
    os.kill(pid, signal.SIGSTOP)  # a stopped process reacts neither to its alarm nor to SIGTERM
    assert grading.result(30) == ["timeout", "ok"]
    assert reward.hard_limit < time.monotonic() - start < reward.hard_limit + 3 + KILL_TIME
    assert ends(pid, 0.1)


def test_a_pool_whose_idle_worker_died_is_replaced_before_the_next_batch(one_worker):
    reward, pid = one_worker
    os.kill(pid, signal.SIGKILL)
    assert ends(pid)
    time.sleep(0.3)  # Pebble notices it
    assert asyncio.run(reward([r"\boxed{4}"], solution=[4])) == [1.0]


def test_workers_that_never_start_a_task_are_replaced(one_worker, monkeypatch):
    reward, pid = one_worker
    monkeypatch.setattr("rewards.shared.workers.START_LIMIT", -3)  # half a second in total
    os.kill(pid, signal.SIGSTOP)
    assert reward.grade([r"\boxed{4}"], [4]) == ["infra"]
    monkeypatch.undo()
    assert ends(pid)
    assert reward.grade([r"\boxed{4}"], [4]) == ["ok"]


def test_close_stops_the_workers_and_ends_a_running_batch(one_worker):
    reward, pid = one_worker
    grading = start_grading(reward, [TOWER] * 20)
    reward.close()
    assert "infra" in grading.result(10)
    assert ends(pid)
    reward.close()  # closing twice is allowed
    assert reward.grade([r"\boxed{4}"], [4]) == ["ok"]


def test_an_interrupt_ends_the_batch(one_worker):
    reward, pid = one_worker
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore SIGINT
    threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            reward.grade([TOWER] * 20, [4] * 20)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert ends(pid)
    assert reward.grade([r"\boxed{4}"], [4]) == ["ok"]


def test_workers_are_replaced_during_a_batch(monkeypatch):
    monkeypatch.setattr("rewards.shared.workers.WORKER_TASKS", 2)
    reward = Math(workers=1, memory_mb=1001)
    others = worker_pids()
    assert reward.grade([r"\boxed{4}", r"\boxed{5}"] * 2 + [r"\boxed{4.0}"], [4] * 5) == ["ok", "wrong"] * 2 + ["ok"]
    (first,) = worker_pids() - others
    assert reward.grade([r"\boxed{4}"], [4]) == ["ok"]
    assert ends(first)
    reward.close()


def test_a_batch_continues_while_results_arrive():
    first, last = Future(), Future()
    for future, delay in ((first, 0.5), (last, 2.5)):
        threading.Timer(delay, future.set_result, ["ok"]).start()
    _settle(SimpleNamespace(active=True), [first, last], patience=1.5)
    assert first.done() and last.done()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_is_spawned_has_a_memory_limit_and_does_not_handle_sigterm(one_worker):
    import resource

    _, pid = one_worker
    assert "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()
    soft, hard = resource.prlimit(pid, resource.RLIMIT_AS)
    assert 2**30 < soft == hard < 2**31  # 1024 MiB plus the imports
    status = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    caught_or_ignored = int(status["SigCgt"], 16) | int(status["SigIgn"], 16)
    assert not caught_or_ignored & 1 << (signal.SIGTERM - 1)


def test_two_threads_that_grade_first_at_the_same_time_start_one_pool(monkeypatch):
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
import pebble  # registers its exit hook first, so that the hook runs last
from {package} import get_reward

def count_workers():
    print(len(multiprocessing.active_children()))

if __name__ == "__main__":
    atexit.register(count_workers)
    statuses = get_reward("math", workers=1).grade([r"\\boxed{{4.0}}", r"\\boxed{{5}}"], [4, 4])
    print(*statuses, "gbpo" in sys.modules, *[child.pid for child in multiprocessing.active_children()])
"""


def test_two_processes_grade_at_the_same_time_under_any_package_name_and_leave_no_worker(tmp_path):
    shutil.copytree(ROOT / "rewards", tmp_path / "renamed", ignore=shutil.ignore_patterns("__pycache__"))
    processes = []
    for package, path in (("rewards", ROOT), ("renamed", tmp_path)):
        script = tmp_path / f"with_{package}.py"
        script.write_text(SCRIPT.format(package=package))
        environment = {**os.environ, "PYTHONPATH": str(path)}
        command = [sys.executable, str(script)]
        processes.append(subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True))
    for process in processes:
        output, _ = process.communicate(timeout=300)
        *line, pid, workers_left = output.split()
        assert (line, workers_left, process.returncode) == (["ok", "wrong", "False"], "0", 0)
        assert ends(int(pid))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_process_uses_its_own_workers_and_not_its_parents(one_worker):
    reward, pid = one_worker
    child = os.fork()
    if child == 0:
        graded = reward.grade([r"\boxed{4.0}"], [4]) == ["ok"]
        reward.close()
        os._exit(0 if graded else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert not ends(pid, 0.3)
    assert reward.grade([r"\boxed{4.0}"], [4]) == ["ok"]


def grade_one():
    assert Math(workers=1).grade([r"\boxed{4.0}"], [4]) == ["ok"]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_process_that_multiprocessing_started_ends_after_grading(method):
    process = multiprocessing.get_context(method).Process(target=grade_one)
    process.start()
    process.join(120)
    code = process.exitcode
    process.kill()
    assert code == 0


WITHOUT_GUARD = {
    "asynchronous": "print(asyncio.run(get_reward('math', workers=2)([r'\\boxed{4}'] * 8, solution=[4] * 8)))",
    "synchronous": "print(get_reward('math', workers=1).grade([r'\\boxed{4}'], [4]))",
}


@pytest.mark.parametrize("call", WITHOUT_GUARD.values(), ids=WITHOUT_GUARD)
def test_a_script_without_a_main_guard_ends_in_one_line_that_names_the_guard(call, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"import asyncio\nfrom rewards import get_reward\n{call}\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert str(script) in line and "grades while it is imported" in line and 'if __name__ == "__main__":' in line
