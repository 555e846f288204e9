"""How a run ends: a watcher beside each rank, the reason in one line, and the command that continues the run."""

import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback

from ...shared.commands import as_typed, short_path, short_words
from ...shared.secret_values import without_secrets
from ...shared.stopping import TrainingStopped
from ..output.commands import continued
from . import watcher
from .group import agreed
from .launcher import parent_command


class Terminated(SystemExit):
    """Raised in the main thread on SIGTERM, which batch systems and launchers send."""


class StepReport(TrainerCallback):
    """Tells the watcher which optimiser step the run has reached."""

    def __init__(self, pipe):
        self._pipe = pipe

    def on_train_begin(self, args, state, control, **kwargs):
        _tell(self._pipe, step=state.global_step)  # not 0 in a resumed run

    def on_step_end(self, args, state, control, **kwargs):
        _tell(self._pipe, step=state.global_step)


@contextlib.contextmanager
def watched(output: Path) -> Iterator[StepReport]:
    """Run a block beside a watcher process. The watcher writes `report.txt` at the end, even if this process is killed.

    All ranks must enter the block together.

    Yields:
        The callback that tells the watcher the current step.
    """
    state = PartialState()
    output.mkdir(parents=True, exist_ok=True)
    about = {
        "output": str(output),
        "folder": agreed(lambda: _new_watchers_folder(output)),
        "rank": state.process_index,
        "ranks": state.num_processes,
        "host": platform.node(),
        "pid": os.getpid(),
        "command": command_to_continue(output),
    }
    process = subprocess.Popen(
        [sys.executable, "-P", watcher.__file__, json.dumps(about)],  # -P: never import a file beside the watcher
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # signals sent to the rank's process group must not end the watcher
    )
    pipe, until_closed = process.stdin, process.stdout
    assert pipe is not None and until_closed is not None

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
        until_closed.read()
        until_closed.close()
        # The watcher may still be waiting for the watcher of rank 0, which writes the report. Do not wait for that.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)


def _new_watchers_folder(output: Path) -> str:
    """A folder with a new name for each run, because watchers of an earlier run may still use their folder."""
    shutil.rmtree(output / watcher.FOLDER, ignore_errors=True)
    return str(output / watcher.FOLDER / uuid.uuid4().hex)


# The last is what torch.save reports when a file takes no more bytes.
_DISK_IS_FULL = ("No space left on device", "Disk quota exceeded", "unexpected pos")


def reason(error: BaseException) -> str:
    """The error that ended a run, in one line."""
    if isinstance(error, TrainingStopped):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, Terminated):
        return "terminated by SIGTERM"
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    full = any(words in text for words in _DISK_IS_FULL)
    return f"the disk is full, free some space before you continue ({text})" if full else text


def _words() -> list[str]:
    """The words of the command that started this run, including its launcher."""
    arguments = sys.argv[1:]
    launcher = parent_command()
    if arguments and launcher[-len(arguments) :] == arguments:  # accelerate or torchrun, not a shell
        return launcher
    return list(sys.orig_argv)


def started_words() -> list[str]:
    """The words of the command that started this run, for readers on other machines.

    Programs of this Python environment have their names alone, other paths are short, and values of fields such as
    `hub_token` are hidden.
    """
    return _shown_words(lambda program: program.name)


def command_to_continue(output: Path) -> str:
    """The command that started this run, with flags to continue in `output`, for the folder in which it was started.

    A program that the shell would not find by its name has its path.
    """

    def typed(program: Path) -> str:
        return program.name if shutil.which(program.name) == str(program) else short_path(program)

    return as_typed(continued(_shown_words(typed), Path(short_path(output))))


def _shown_words(shown: Callable[[Path], str]) -> list[str]:
    """The words of the command that started this run. `shown` gives the text of a program of this environment."""
    programs, words = Path(sys.executable).parent, _words()
    paths = [Path(word).absolute() for word in words]
    if len(words) > 1 and paths[1].parent == programs:  # the interpreter of an installed script
        words, paths = words[1:], paths[1:]
    named = [shown(path) if path.parent == programs else word for word, path in zip(words, paths, strict=True)]
    return short_words(without_secrets(named))


def _tell(pipe: Any, **message: Any) -> None:
    with contextlib.suppress(BrokenPipeError, ValueError):  # the watcher was killed
        pipe.write(json.dumps(message).encode() + b"\n")
        pipe.flush()
