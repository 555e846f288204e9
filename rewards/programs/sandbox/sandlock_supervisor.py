"""Run by `backends.sandlock` in a process of its own: sandlock forks, which a process that holds a GPU must not.

Usage: sandlock_supervisor.py POLICY, a JSON object with a command, the folder that is its `/tmp`, how many bytes and
files that may hold, and a user's number or null. The streams are the command's.
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
_LOOK_SECONDS = 0.1  # from one look at the folder to the next


def main(policy: str) -> None:
    """Confine the command, wait for its end and take its exit code."""
    given = json.loads(policy)
    if given["user"] is not None:
        os.setgroups([])
        os.setresgid(*[given["user"]] * 3)
        os.setresuid(*[given["user"]] * 3)
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # after a change of user its own /proc is closed, which sandlock needs
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
    """End everything once the folder holds too much; nothing else limits what is written there."""
    while not _full(folder, most_bytes, most_files):
        time.sleep(_LOOK_SECONDS)
    os._exit(1)


def _full(folder: str, most_bytes: int, most_files: int) -> bool:
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
        except OSError:  # locked, or nested too deep: only to hide something
            return True
    return False


if __name__ == "__main__":
    main(sys.argv[1])
