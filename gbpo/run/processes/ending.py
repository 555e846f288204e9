"""How a run ends: the watcher beside each rank, the reason of an error, and the command to go on."""

import contextlib
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback

from ...shared.stopping import TrainingStopped
from . import watcher
from .group import agreed, parent_command


class Terminated(SystemExit):
    """SIGTERM, as a batch system or a launcher sends it."""


class StepReport(TrainerCallback):
    """Tells the watcher which optimiser step the run has reached."""

    def __init__(self, pipe):
        self._pipe = pipe

    def on_step_end(self, args, state, control, **kwargs):
        _tell(self._pipe, step=state.global_step)


@contextlib.contextmanager
def watched(output: Path) -> Iterator[StepReport]:
    """Run a block under a watcher that writes `report.txt` however it ends; all ranks enter it together.

    Yields the callback that keeps the watcher's step up to date.
    """
    state = PartialState()
    output.mkdir(parents=True, exist_ok=True)
    agreed(lambda: shutil.rmtree(output / watcher.FOLDER, ignore_errors=True))  # of a run that ended badly
    about = {
        "output": str(output),
        "rank": state.process_index,
        "ranks": state.num_processes,
        "host": platform.node(),
        "pid": os.getpid(),
        "command": command_to_go_on(output),
    }
    process = subprocess.Popen(
        [sys.executable, watcher.__file__, json.dumps(about)],
        stdin=subprocess.PIPE,
        start_new_session=True,  # what is sent to the group of the rank is not meant for it
    )
    pipe = process.stdin
    assert pipe is not None

    def terminate(number, frame):
        raise Terminated(128 + number)

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield StepReport(pipe)
        _tell(pipe, ended=None)
    except BaseException as error:
        _tell(pipe, ended=reason(error))
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
        process.wait()


def reason(error: BaseException) -> str:
    """One line for what ended a run."""
    if isinstance(error, TrainingStopped):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, Terminated):
        return "terminated by SIGTERM"
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    full = "No space left on device" in text or "Disk quota exceeded" in text  # by whichever library wrote
    return f"the disk is full, make room before you go on ({text})" if full else text


def command_to_go_on(output: Path) -> str:
    """The command that started this run, with its launcher, made to continue in `output`."""
    arguments = sys.argv[1:]
    words = list(sys.orig_argv)
    launcher = parent_command()
    if arguments and launcher[-len(arguments) :] == arguments:  # accelerate or torchrun, not a shell
        words = launcher
    flags = {"--output_dir": str(output), "--resume_from_checkpoint": "auto"}
    kept = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if before not in flags and word.split("=")[0] not in flags
    ]
    return shlex.join([*kept, *(word for flag in flags.items() for word in flag)])


def _tell(pipe: Any, **message: Any) -> None:
    with contextlib.suppress(BrokenPipeError, ValueError):  # a watcher that somebody ended
        pipe.write(json.dumps(message).encode() + b"\n")
        pipe.flush()
