"""Commands and scripts that tests run in processes of their own."""

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from multiprocessing.connection import wait
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FOLDERS = [str(ROOT), str(ROOT / "tests" / "shared")]
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["gbpo.run.train"])


def run_script(script, *arguments, ranks=1, cwd=None, timeout=900):
    """Run a script, which must succeed, in one process or as the ranks of one group. It can import tests/shared.

    The processes are forked from one that has imported the trainer, because the imports take five seconds. Use `run`
    for commands as a user types them.

    Returns:
        What the processes printed, as text.
    """
    words = [str(word) for word in (script, *arguments)]
    with tempfile.NamedTemporaryFile() as file:
        group = [
            _forks.Process(target=_run, args=(words, os.environ | rank, cwd or os.getcwd(), file.name))
            for rank in _environments(ranks)
        ]
        for process in group:
            process.start()
        running = {process.sentinel: process for process in group}
        try:
            while running:
                ended = wait(running, timeout)
                assert ended, f"{words} runs for more than {timeout} s"
                for sentinel in ended:
                    process = running.pop(sentinel)
                    process.join()
                    assert process.exitcode == 0, Path(file.name).read_text()[-4000:]
        finally:
            for process in running.values():
                process.kill()
        return Path(file.name).read_text()


def _environments(ranks):
    """The variables that torchrun sets for each rank."""
    if ranks == 1:
        return [{}]
    with socket.create_server(("127.0.0.1", 0)) as free:
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "GROUP_RANK": "0"}
    group |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(ranks))
    return [group | dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank)) for rank in range(ranks)]


def _run(words, environment, cwd, output):
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.path[:0] = [str(Path(words[0]).parent), *_FOLDERS]
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")


def run(*words, cwd=None, timeout=900):
    """Run a command, which must succeed. It can import the modules of tests/shared.

    Returns:
        The finished process with its `stdout` and `stderr` as text.
    """
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(_FOLDERS)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done
