"""What happened to a run: its starts, its ends, and whether it still runs. It is read from the files of its folder."""

import fcntl
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..output.folder import CONFIG

FINISHED = "finished"

_REPORT, _LOCK = "report.txt", ".lock"  # the watcher and the lock of the output folder write them
_END = re.compile(r"(\d+-\d+-\d+ \d+:\d+:\d+) ended at step (\d+): (.*?); last checkpoint: (.*?)(?:; go on with: .*)?")


@dataclass(frozen=True)
class Start:
    """A start of the run, or a resume.

    Args:
        step: The optimiser step that it continues from, 0 for a start.
        time: When it started. Empty if an early version of gbpo wrote the folder.
        config: What `config.json` holds.
    """

    step: int
    time: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class End:
    """An end of the run.

    Args:
        step: The last optimiser step.
        why: The reason, or "finished".
        time: When it ended. Empty for the end that is happening now.
    """

    step: int
    why: str
    time: str = ""


@dataclass(frozen=True)
class Story:
    """The starts and ends of a run.

    Args:
        starts: In the order of time. The last one has the settings that are in force.
        ends: In the order of time.
        running: Whether a process of this machine writes to the folder.
        command: The command that continues the run, in the folder where it was started. Empty if an early version of
            gbpo wrote the folder.
        checkpoint: The last checkpoint, or an empty text.
    """

    starts: list[Start]
    ends: list[End]
    running: bool
    command: str
    checkpoint: str

    @property
    def end(self) -> End | None:
        """How the last start ended. None if it still runs, or if nobody noted its end."""
        if self.running or not self.ends:
            return None
        last = self.ends[-1]
        return None if last.time and last.time < self.starts[-1].time else last


def read(run: Path, ending: End | None = None) -> Story:
    """Read the story of a run.

    Args:
        run: Output folder of the run.
        ending: How the run ends now, if it is this process that writes to the folder.

    Raises:
        ValueError: The folder is not the output folder of a run.
    """
    starts = sorted(_starts(run), key=lambda start: start.time)
    if not starts:
        raise ValueError(
            f"{str(run)!r} is neither the output folder of a run nor of a comparison, so there is nothing to report. "
            "Give a folder such as runs/tiny_math, with the file config.json that a run writes."
        )
    report = run / _REPORT
    lines = report.read_text().splitlines() if report.is_file() else []
    ends = [End(int(match[2]), match[3], match[1]) for line in lines if (match := _END.fullmatch(line))]
    checkpoints = sorted(
        (path for path in run.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()),
        key=lambda path: int(path.name.removeprefix("checkpoint-")),
    )
    return Story(
        starts=starts,
        ends=[*ends, ending] if ending else ends,
        running=not ending and _is_locked(run / _LOCK),
        command=starts[-1].config.get("command_to_continue", ""),
        checkpoint=checkpoints[-1].name if checkpoints else "",
    )


def _starts(run: Path) -> list[Start]:
    found = []
    for path in [run / CONFIG, *run.glob("config-from-*.json")]:
        try:
            config = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(config, dict) and {"run", "training"} <= config.keys():
            step = 0 if path.name == CONFIG else int(path.stem.rpartition("-")[2])
            found.append(Start(step, config.get("started", ""), config))
    return found


def _is_locked(path: Path) -> bool:
    """Whether a process holds the lock of an output folder."""
    if not path.is_file():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
