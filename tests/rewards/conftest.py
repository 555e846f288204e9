"""Fixtures for what runs programs: box processes found by a mark, and scripts run as root and as nobody."""

import functools
import json
import os
import stat
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

import rewards
from rewards.programs.sandbox import backends

ROOT = Path(rewards.__file__).resolve().parents[1]
NOBODY = 65534
_DROP = f"""
import os, sys
os.setgroups([])
os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
os.execv(sys.argv[1], sys.argv[1:])
"""


class Marked:
    """Boxes of this test carry a mark in their command lines; says which of their processes run."""

    def __init__(self, mark):
        self.mark = mark

    def pids(self):
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
            except OSError:  # it has ended
                pass
        return found

    def gone(self, patience=5.0):
        """Whether none is left, after the moment that the kernel takes to end a namespace."""
        deadline = time.monotonic() + patience
        while self.pids() and time.monotonic() < deadline:
            time.sleep(0.02)
        return not self.pids()


@pytest.fixture
def marked(monkeypatch):
    mark = uuid.uuid4().hex
    monkeypatch.setattr(backends, "_SOURCE", f"# {mark}\n{backends._SOURCE}")
    return Marked(mark)


def _closed(path):
    """The outermost folder on the way to a path that only its owner may enter; None where there is none."""
    return next((p for p in [*reversed(path.parents), path] if not p.stat().st_mode & stat.S_IXOTH), None)


def _as_nobody(command):
    """The command, run by nobody; folders on the way to Python and to this repository are opened in a view of its own.

    An empty file system covers every closed folder, and what is needed below it is put back, read-only.
    """
    needed = {Path(p).resolve() for p in (sys.base_prefix, sys.base_exec_prefix, sys.prefix, ROOT)}
    needed |= {Path(sys.executable).parent.resolve(), Path(sys.executable).resolve().parents[1]}
    covered = {path: _closed(path) for path in needed if _closed(path)}
    view = []
    for folder in sorted(set(covered.values())):
        view += ["--perms", "0755", "--tmpfs", str(folder)]
    for path, folder in sorted(covered.items()):
        for parent in reversed(path.relative_to(folder).parents[:-1]):
            view += ["--perms", "0755", "--dir", str(folder / parent)]
        view += ["--ro-bind", str(path), str(path)]
    capabilities = ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--die-with-parent"]
    wrapper = [backends._bwrap(), "--dev-bind", "/", "/", *view, *capabilities, "--"] if view else []
    return [*wrapper, sys.executable, "-c", _DROP, *command]


@functools.cache
def _obstacle(user):
    """Why the tests cannot run as this user; None where they can."""
    if user == "root" and os.geteuid() != 0:
        return "THE ROOT HALF DID NOT RUN: these tests run without privileges, so nothing was tested as root"
    if user == "nobody" and os.geteuid() == 0:
        probe = [*_as_nobody([sys.executable, "-c", "import os, rewards.box; print(os.geteuid())"])]
        done = subprocess.run(probe, cwd="/", env=_environment(), capture_output=True, text=True, timeout=60)
        if done.stdout.split() != [str(NOBODY)]:
            return f"THE UNPRIVILEGED HALF DID NOT RUN: nobody cannot run Python here: {done.stderr[-500:]}"
    return None


def _environment():
    return os.environ | {"PYTHONPATH": str(ROOT), "HOME": "/tmp"}


@pytest.fixture(params=["root", "nobody"])
def run_as(request):
    """Runs a Python script as root, then as nobody, and gives the JSON of its last line; or starts it and gives it."""
    if _obstacle(request.param):
        pytest.skip(_obstacle(request.param))

    def start(*arguments, **environment):
        command = [sys.executable, *map(str, arguments)]
        if request.param == "nobody" and os.geteuid() == 0:
            command = _as_nobody(command)
        pipe, environment = subprocess.PIPE, _environment() | environment
        return subprocess.Popen(command, cwd="/", env=environment, stdout=pipe, stderr=pipe, text=True)

    def run(*arguments, timeout=120):
        process = start(*arguments)
        try:
            output, errors = process.communicate(timeout=timeout)
        finally:
            process.kill()
        assert process.returncode == 0, errors[-4000:]
        return json.loads(output.splitlines()[-1])

    run.start, run.user = start, request.param
    return run


@functools.cache
def _blocked(backend, user):
    """What about this machine, and not about the box, keeps a backend from running; None where nothing does."""
    if backend == "bubblewrap":
        identity = [] if os.geteuid() == 0 else ["--unshare-user"]
        probe = [backends._bwrap(), *identity, "--unshare-pid", "--unshare-net", "--ro-bind", "/", "/", "true"]
        done = subprocess.run(probe, capture_output=True, text=True)
        return f"namespaces are blocked here: {done.stderr}" if done.returncode else None
    sandlock = pytest.importorskip("sandlock")
    if sandlock.landlock_abi_version() < sandlock.min_landlock_abi():
        return "this kernel's Landlock is too old for sandlock"
    if user == "root" and not backends._all_users_can_enter(backends._interpreter()):
        return "SANDLOCK AS ROOT DID NOT RUN: no other user reaches this Python, so the box could not drop to one"
    return None


@pytest.fixture
def skip_if_blocked():
    """Skips where this machine does not let a backend run for a user."""

    def check(backend, user=None):
        reason = _blocked(backend, user or ("nobody" if os.geteuid() else "root"))
        if reason:
            pytest.skip(reason)

    return check
