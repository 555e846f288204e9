"""Run by `backends.sandlock` in a process of its own: sandlock forks, which a process that holds a GPU must not.

Usage: sandlock_supervisor.py '{"command": [...], "tmp": folder, "user": uid or null}'; the streams are the command's.
"""

import json
import os
import sys
from pathlib import Path

from sandlock import Sandbox, StdioMode

_READABLE = ("/usr", "/bin", "/lib", "/lib64", "/lib32", "/dev/urandom", "/dev/random", "/dev/zero")


def main(policy: str) -> None:
    """Confine the command, wait for its end and take its exit code."""
    given = json.loads(policy)
    if given["user"] is not None:
        os.setgroups([])
        os.setresgid(*[given["user"]] * 3)
        os.setresuid(*[given["user"]] * 3)
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
    sys.exit(sandbox.popen(given["command"], StdioMode.INHERIT, StdioMode.INHERIT, StdioMode.INHERIT).wait().exit_code)


if __name__ == "__main__":
    main(sys.argv[1])
