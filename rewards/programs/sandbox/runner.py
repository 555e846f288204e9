"""Run one untrusted program. sandbox/backends.py sends the source of this file into the box, after wire.py.

A bare interpreter with only the standard library executes the source. The runner reads one JSON request from standard
input. It writes `ready` when its setup is complete, and then one line of JSON per test. Each test runs in its own
forked child. For a test that talks, the runner also writes a line for each line of the child, and reads the answer from
standard input. A failure before `ready` counts as a failure of the sandbox, a later failure as a failure of the
program.
"""

import atexit
import base64
import builtins
import contextlib
import ctypes
import itertools
import json
import marshal
import os
import resource
import select
import signal
import sys
import time
import types

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SECCOMP_MODE_FILTER = 2
_BPF_INSTRUCTION = 8  # bytes
_CHECK_SECONDS = 0.1  # interval between checks of the number of files


def main():
    request = json.loads(sys.stdin.buffer.readline())
    if request["user"] is not None:
        os.setgroups([])
        os.setresgid(*[request["user"]] * 3)
        os.setresuid(*[request["user"]] * 3)
    null = os.open("/dev/null", os.O_RDWR)
    names: dict[str, object] = {}
    try:
        exec(compile(request["prelude"], "prelude.py", "exec"), names)
    except BaseException as error:
        sys.exit(f"the prelude raises {type(error).__name__}: {error}")
    request["names"] = {name: value for name, value in names.items() if not name.startswith("__")}
    libc = ctypes.CDLL(None, use_errno=True)
    _prctl(libc, _PR_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
    _install(libc, request["box_filter"])
    _write(1, b"ready\n")
    request["talk"] = request["talk"] and marshal.loads(base64.b64decode(request["talk"]))
    for test in request["tests"]:
        _report(*_run(request, test, null, libc))


def _report(end, data):
    _write(1, json.dumps({"end": end, "data": base64.b64encode(data).decode()}).encode() + b"\n")


def _prctl(libc, option, *arguments):
    if libc.prctl(option, *arguments, *[0] * (4 - len(arguments))):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def _install(libc, encoded):
    """Apply a system-call filter to this process and its children. It cannot be removed."""
    if encoded:
        code = base64.b64decode(encoded)
        buffer = ctypes.create_string_buffer(code, len(code))
        program = _FilterProgram(len(code) // _BPF_INSTRUCTION, ctypes.addressof(buffer))
        _prctl(libc, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program))


class _FilterProgram(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


def _run(request, test, null, libc):
    """Run one test in a forked child. Returns how the child ended, and its output."""
    given = os.memfd_create("stdin")
    _write(given, test.get("stdin", "").encode("utf-8", "surrogatepass"))
    os.lseek(given, 0, os.SEEK_SET)
    out, into = os.pipe()
    answers, answer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _enter(request, given, into if "stdin" in test else null, into, answers, null, libc)
            code = _solve(request, test)
        finally:
            os._exit(code)
    for descriptor in (given, into, answers):
        os.close(descriptor)
    deadline = time.monotonic() + request["wall_seconds"]
    data, end = _read(out, request["output_bytes"], deadline, request["files"], by_line="talk" in test)
    while "talk" in test and end is None and data.endswith(b"\n"):
        _report("said", data)
        asked = time.monotonic()
        line = sys.stdin.buffer.readline()
        deadline += time.monotonic() - asked  # the time of the other side
        _send(answer, line, deadline)
        data, end = _read(out, request["output_bytes"], deadline, request["files"], by_line=True)
    os.close(out)
    os.close(answer)
    status, usage = _reap(child, deadline if end is None else 0.0, request["files"])
    if end is not None:
        return end, b""
    if status is None or _out_of_time(status, usage, request["cpu_seconds"]):
        return "timeout", b""
    return ("ok", data) if os.waitstatus_to_exitcode(status) == 0 else ("died", b"")


def _too_many_files(files):
    """Whether `/tmp` has more than `files` files. Each file takes memory beyond the size limit of `/tmp`."""
    if files is None:
        return False
    tmp = os.statvfs("/tmp")
    return tmp.f_files - tmp.f_ffree > files


def _send(answer, line, deadline):
    """Write a line to the child, which may be hostile and not read it."""
    poll = select.poll()
    poll.register(answer, select.POLLOUT)
    view = memoryview(line)
    with contextlib.suppress(BrokenPipeError):
        while view and (left := deadline - time.monotonic()) > 0:
            if poll.poll(left * 1000):
                view = view[os.write(answer, view[: select.PIPE_BUF]) :]


def _read(out, cap, deadline, files, by_line=False):
    """Read the pipe to its end, or to the end of a line.

    Returns the data, and None or the reason why reading stopped early.
    """
    chunks: list[bytes] = []
    size = 0
    poll = select.poll()
    poll.register(out, select.POLLIN)
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return b"", "timeout"
        if _too_many_files(files):
            return b"", "overflow"
        if not poll.poll(min(left, _CHECK_SECONDS) * 1000):
            continue
        chunk = os.read(out, 65536)
        if not chunk:
            return b"".join(chunks), None
        size += len(chunk)
        if size > cap:
            return b"", "overflow"
        chunks.append(chunk)
        if by_line and chunk.endswith(b"\n"):
            return b"".join(chunks), None


def _reap(child, deadline, files):
    """Wait for a child that has closed its output. Returns the child's status (None if killed here) and usage."""
    pause = 0.0002
    while time.monotonic() < deadline and not _too_many_files(files):
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            return status, usage
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
    os.kill(child, signal.SIGKILL)
    return None, os.wait4(child, 0)[2]


def _out_of_time(status, usage, cpu_seconds):
    """Whether the CPU limit ended the child: by SIGXCPU, or by SIGKILL one second later."""
    killer = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    return killer == signal.SIGXCPU or (killer == signal.SIGKILL and usage.ru_utime + usage.ru_stime > cpu_seconds)


def _write(fd, data):
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


# The functions below run in the child.


def _enter(request, given, output, into, answers, null, libc):
    """Set up the child: standard streams, descriptors 3 and 4 to return values and to read answers; then the limits."""
    for descriptor, target in ((given, 0), (output, 1), (null, 2), (into, 3), (answers, 4)):
        os.dup2(descriptor, target)
    os.closerange(5, 4096)
    for name, limit in request["limits"].items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (soft, soft + 1 if kind == resource.RLIMIT_CPU else soft))
    _prctl(libc, _PR_SET_PDEATHSIG, signal.SIGKILL)
    _install(libc, request["test_filter"])


def _solve(request, test):
    """Run the program and, in a call test, the calls. Returns the exit code.

    In a test that talks, the request's code `talk` runs the program instead, and converses on the descriptors 3 and 4.
    The names of the prelude become builtins, so that they replace no name of the program.
    """
    sys.argv = ["solution.py"]
    for fd, name, mode, errors in ((0, "stdin", "r", None), (1, "stdout", "w", None), (2, "stderr", "w", "replace")):
        stream = open(fd, mode, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    # a bare interpreter defines neither exit nor quit
    vars(builtins).update({**request["names"], **vars(builtins), "exit": sys.exit, "quit": sys.exit})
    sys.set_int_max_str_digits(0)  # the time limit is enough
    sys.setrecursionlimit(50_000)  # as in LiveCodeBench's grader; on LeetCode it is higher
    calls, talks = test.get("calls"), "talk" in test
    if not talks:
        os.close(4)
    if calls is None and not talks:
        os.close(3)
    name = "__main__" if calls is None and not talks else "solution"  # call tests skip the `__main__` block
    module = types.ModuleType(name)
    sys.modules[name] = module
    sys.modules["__main__"] = module
    code = 0
    try:
        if talks:
            exec(request["talk"], globals() | {"program": request["program"], "module": module, "order": test["talk"]})
        else:
            exec(compile(request["program"], "solution.py", "exec"), module.__dict__)
        if calls is not None:
            _answer([_call(module, **call) for call in calls])
    except SystemExit as end:
        code = 0 if end.code is None else end.code if isinstance(end.code, int) else 1
    except BaseException:
        code = 1
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    atexit._run_exitfuncs()
    for name in ("stdout", "__stdout__"):  # the program may have replaced sys.stdout
        with contextlib.suppress(Exception):
            getattr(sys, name).flush()
    return code & 0xFF


def _answer(values):
    try:
        text = encode(values, iterables=True)  # type: ignore[name-defined]  # noqa: F821  (wire.py comes before this)
    except (TypeError, ValueError):
        return  # the value is not plain data, so the test has no result
    _write(3, text.encode("ascii"))


def _call(module, function, args, kwargs, items=None):
    """Call a function of the program or, if there is no such function, a method of its class `Solution`.

    Of a returned iterator, only `items` items are read, because it may be endless.
    """
    if not hasattr(module, function) and hasattr(module, "Solution"):
        module = module.Solution()
    value = getattr(module, function)(*decode(args), **decode(kwargs))  # type: ignore[name-defined]  # noqa: F821
    return value if items is None or not hasattr(value, "__next__") else itertools.islice(value, items)


main()
