"""A script that runs one command in sandlock. sandbox/backends.py starts the script as a process outside the box.

The script is a separate process because sandlock forks, and a process that uses a GPU must not fork.

Usage: sandlock_supervisor.py POLICY. The policy is a JSON object: `command`, `tmp` (the folder that the command sees as
`/tmp`), `tmp_bytes` and `tmp_files` (limits of that folder), and `user` (a user id or null). The command inherits the
standard streams.
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from sandlock import Sandbox, StdioMode

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_READABLE = ("/usr", "/bin", "/lib", "/lib64", "/lib32", "/dev/urandom", "/dev/random", "/dev/zero")
_CHECK_SECONDS = 0.1  # interval between checks of the folder


def main(policy: str) -> None:
    """Run the command in sandlock and exit with its exit code."""
    given = json.loads(policy)
    if given["user"] is not None:
        os.setgroups([])
        os.setresgid(*[given["user"]] * 3)
        os.setresuid(*[given["user"]] * 3)
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # a change of user closes the process's own /proc, which sandlock needs
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    prefixes = {sys.base_prefix, sys.base_exec_prefix, str(Path(given["command"][0]).parents[1])}
    sandbox = Sandbox(
        chroot="/",
        fs_mount={"/tmp": given["tmp"]},
        fs_readable=[path for path in (*_READABLE, *sorted(prefixes)) if os.path.exists(path)],
        fs_writable=["/tmp", "/dev/null"],
        clean_env=True,
        env=dict(os.environ),
        cwd="/tmp",
    )
    process = sandbox.popen(given["command"], StdioMode.INHERIT, StdioMode.INHERIT, StdioMode.INHERIT)
    threading.Thread(target=_watch, args=(given["tmp"], given["tmp_bytes"], given["tmp_files"]), daemon=True).start()
    sys.exit(process.wait().exit_code)


def _watch(folder: str, most_bytes: int, most_files: int) -> None:
    """End the box when the folder is too full. Nothing else limits how much the command writes to the folder."""
    while not _full(folder, most_bytes, most_files):
        time.sleep(_CHECK_SECONDS)
    os._exit(1)


def _full(folder: str, most_bytes: int, most_files: int) -> bool:
    """Whether the folder has more bytes or files than allowed, or cannot be read."""
    folders = [folder]
    while folders:
        try:
            with contextlib.suppress(FileNotFoundError), os.scandir(folders.pop()) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):  # removed in the meantime
                        most_files -= 1
                        most_bytes -= 512 * entry.stat(follow_symlinks=False).st_blocks
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(entry.path)
                    if most_files < 0 or most_bytes < 0:
                        return True
        except OSError:  # the folder is locked or nested too deep, so a program is hiding files
            return True
    return False


if __name__ == "__main__":
    main(sys.argv[1])
