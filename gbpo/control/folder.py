"""The output folder of a control run: file names, protection of existing files, and one lock per seed."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

from filelock import FileLock, Timeout

from .recipe import Command, Plan

RESULTS, CURVE, LOCK = "results.json", "curve.png", "lock"
_OWN = re.compile(rf"seed-\d+|{RESULTS}|{CURVE}|{LOCK}")  # the names that a run writes


def seed_folder(output: Path, seed: int) -> Path:
    """The folder of one seed, with its checkpoints and its log."""
    return output / f"seed-{seed}"


def check(output: Path, plan: Plan) -> None:
    """Check that a run of `plan` may write to `output`, so that no file is overwritten.

    Args:
        output: Folder of the results.
        plan: The run to start or to resume.

    Raises:
        ValueError: `output` is a file, or a folder that holds another run or other files.
    """
    if output.exists() and not output.is_dir():
        raise ValueError(f"output={str(output)!r} is a file. Give a folder.")
    if not output.exists():
        return
    names = [path.name for path in output.iterdir()]
    if RESULTS not in names and all(map(_OWN.fullmatch, names)):
        if trained := next(output.glob("seed-*/checkpoint-*"), None):
            raise ValueError(
                f"output={str(output)!r} holds {trained.name}, but no {RESULTS} with the settings of its "
                "run. Restore that file from a copy, or give another folder."
            )
        return  # empty, or another process is starting a run here
    try:
        existing = json.loads((output / RESULTS).read_text())["plan"]
    except (OSError, ValueError, LookupError, TypeError):
        raise ValueError(
            f"output={str(output)!r} holds files that do not belong to a control run, and the results would be mixed "
            "with them. Give another folder."
        ) from None
    new = json.loads(json.dumps(dataclasses.asdict(plan)))  # tuples become lists, as in the file
    for name, value in new.items():
        if existing.get(name) != value:
            raise ValueError(
                f"output={str(output)!r} holds a run with {name}={existing.get(name)}, but this run has {value}. Give "
                "another folder, or give the same settings to resume that run."
            )


def claim(command: Command) -> list[FileLock]:
    """Create the folders of the seeds and lock each of them, so that no other process trains the same seed.

    Args:
        command: The command line, with seeds and output folder.

    Returns:
        One lock per seed. A lock is released by its method `release()`, or when the process ends.

    Raises:
        ValueError: The folder cannot be written, or another process holds one of the locks.
    """
    locks = []
    try:
        for seed in command.seeds:
            seed_folder(command.output, seed).mkdir(parents=True, exist_ok=True)
            locks.append(FileLock(seed_folder(command.output, seed) / "lock"))
            locks[-1].acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"seed={seed} in {str(command.output)!r} is being trained by another process. Wait until it ends, or give "
            "other seeds."
        ) from None
    except OSError as error:
        raise ValueError(
            f"output={str(command.output)!r} cannot be written: {error.strerror}. Give another folder."
        ) from None
    return locks
