"""Commands that tests run in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def python(processes=1):
    """The beginning of a command that runs a script in one process, or in several with torchrun."""
    if processes == 1:
        return [sys.executable]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes]


def run(*words, cwd=None, timeout=900):
    """Run a command, which must succeed. It can import the modules of tests/shared.

    Returns:
        The finished process with its `stdout` and `stderr` as text.
    """
    folders = [str(ROOT), str(ROOT / "tests" / "shared")]
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done
