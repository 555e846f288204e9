"""Fixtures for tests that run programs in boxes: finding box processes, and running scripts as root and as nobody."""

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


class MarkedBoxes:
    """Finds the processes of this test's boxes by a mark in their command lines."""

    def __init__(self, mark):
        self.mark = mark

    def pids(self):
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
            except OSError:  # the process has ended
                pass
        return found

    def gone(self, patience=15.0):
        """Whether all of them end within `patience` seconds. The kernel takes a moment to end a namespace."""
        deadline = time.monotonic() + patience
        while self.pids() and time.monotonic() < deadline:
            time.sleep(0.02)
        return not self.pids()


@pytest.fixture
def marked(monkeypatch):
    mark = uuid.uuid4().hex
    monkeypatch.setattr(backends, "_SOURCE", f"# {mark}\n{backends._SOURCE}")
    return MarkedBoxes(mark)


def _closed(path):
    """The outermost of the path and its parents that only the owner may enter; None if there is none."""
    return next((p for p in [*reversed(path.parents), path] if not p.stat().st_mode & stat.S_IXOTH), None)


def _as_nobody(command):
    """A command that runs `command` as nobody, even if Python or this repository is in a closed folder.

    An empty file system replaces each such folder. The folders that are needed are mounted in it, read-only.
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
    """The reason why the tests cannot run as this user, or None."""
    if user == "root" and os.geteuid() != 0:
        return "THE ROOT HALF DID NOT RUN: these tests run without privileges, so nothing was tested as root"
    if user == "nobody" and os.geteuid() == 0:
        probe = [*_as_nobody([sys.executable, "-c", "import os, rewards.box; print(os.geteuid())"])]
        done = subprocess.run(probe, cwd="/", env=_environment(), capture_output=True, text=True, timeout=300)
        if done.stdout.split() != [str(NOBODY)]:
            return f"THE UNPRIVILEGED HALF DID NOT RUN: nobody cannot run Python here: {done.stderr[-500:]}"
    return None


def _environment():
    return os.environ | {"PYTHONPATH": str(ROOT), "HOME": "/tmp"}


@pytest.fixture(params=["root", "nobody"])
def run_as(request):
    """Runs a Python script as root and as nobody, and returns the JSON of its last line. `start` only starts it."""
    if _obstacle(request.param):
        pytest.skip(_obstacle(request.param))

    def start(*arguments, **environment):
        command = [sys.executable, *map(str, arguments)]
        if request.param == "nobody" and os.geteuid() == 0:
            command = _as_nobody(command)
        pipe, environment = subprocess.PIPE, _environment() | environment
        return subprocess.Popen(command, cwd="/", env=environment, stdout=pipe, stderr=pipe, text=True)

    def run(*arguments, timeout=360):
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
    """The reason why this machine cannot run a backend, or None."""
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
    """Skips the test if this machine cannot run a backend for a user."""

    def check(backend, user=None):
        reason = _blocked(backend, user or ("nobody" if os.geteuid() else "root"))
        if reason:
            pytest.skip(reason)

    return check
