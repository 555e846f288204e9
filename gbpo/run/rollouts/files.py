"""The files `rollouts/generation-*.jsonl.gz` of a run: one for each generation, with every completion.

The first line of a file describes the generation. Each further line is a group: the row of the data set, and its
completions with their rewards, advantages, targets, log-probs and ratios.
"""

import gzip
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...shared.write_whole import write_whole

FOLDER = "rollouts"

_NAME = re.compile(r"generation-(\d+)-steps-(\d+)-(\d+)\.jsonl\.gz")
_QUICK = 1  # zlib's fastest level: the files are a fifth larger than at level 6, and written in a third of the time


class File(NamedTuple):
    """A file of rollouts, and the optimiser steps that trained on its generation."""

    generation: int
    first_step: int
    last_step: int
    path: Path


def files_of(run: Path) -> list[File]:
    """The files of a run, in the order of the generations."""
    found = []
    for path in (run / FOLDER).glob("generation-*"):
        if match := _NAME.fullmatch(path.name):
            found.append(File(*map(int, match.groups()), path))
    return sorted(found)


def existing_files(run: Path) -> list[File]:
    """The files of a run.

    Raises:
        ValueError: The folder does not exist or has no files.
    """
    if not run.is_dir():
        raise ValueError(f"{str(run)!r} is not a folder. Give the output folder of a run, for example runs/tiny_math.")
    files = files_of(run)
    if not files:
        raise ValueError(
            f"{str(run / FOLDER)!r} has no completions, so there is nothing to show. Run the recipe with "
            "log_completions: true. A generation is written after its last optimiser step."
        )
    return files


def files_of_step(run: Path, step: int) -> list[File]:
    """The files of the generations that an optimiser step trained on.

    Raises:
        ValueError: No file is of this step.
    """
    files = existing_files(run)
    chosen = [file for file in files if file.first_step <= step <= file.last_step]
    if not chosen:
        raise ValueError(
            f"step={step} has no completions in {str(run / FOLDER)!r}. Give a step from {files[0].first_step} to "
            f"{files[-1].last_step}."
        )
    return chosen


def write(run: Path, record: Mapping[str, Any]) -> Path:
    """Write the record of a generation, which `RolloutLog` makes. A file of the same generation is replaced."""
    folder, (first, last), number = run / FOLDER, record["steps"], record["generation"]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"generation-{number:05}-steps-{first}-{last}.jsonl.gz"
    header = {name: value for name, value in record.items() if name != "groups"}
    lines = "".join(json.dumps(line) + "\n" for line in [header, *record["groups"]])
    write_whole(path, gzip.compress(lines.encode(), _QUICK, mtime=0))
    for other in folder.glob(f"generation-{number:05}-steps-*"):
        if other != path:
            other.unlink()
    return path


def read(path: Path) -> dict[str, Any]:
    """The record of a generation, as it was passed to `write`.

    Raises:
        ValueError: The file cannot be read.
    """
    try:
        header, *groups = map(json.loads, gzip.decompress(path.read_bytes()).splitlines())
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{str(path)!r} cannot be read ({error}). Delete this file to leave it out.") from None
    return {**header, "groups": groups}


def rewind(run: Path, step: int) -> None:
    """Remove the files of generations that a later step than `step` trained on. A resumed run writes them again."""
    for file in files_of(run):
        if file.last_step > step:
            file.path.unlink()
