"""The files `rollouts/generation-*.jsonl.gz` of a run: one for each generation, with every completion.

The first line of a file describes the generation. Each further line is a group: the row of the data set, and its
completions with their rewards, advantages, targets, log-probs and ratios.
"""

import gzip
import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...shared.commands import short_path
from ...shared.write_whole import write_whole
from ..output.folder import CONFIG

FOLDER = "rollouts"

_NAME = re.compile(r"generation-(\d+)-step-(\d+)\.jsonl\.gz")
_QUICK = 1  # zlib's fastest level, because training waits for the file


class File(NamedTuple):
    """A file of rollouts, and the first optimiser step that trained on its generation."""

    generation: int
    first_step: int
    path: Path


def files_of(run: Path) -> list[File]:
    """The files of a run, in the order of the generations.

    Raises:
        ValueError: The folder is not that of a run, or has no files.
    """
    files = _files(run)
    if not files and not (run / CONFIG).is_file():
        raise ValueError(
            f"{str(run)!r} is not the output folder of a run, so there is nothing to show. Give a folder such as "
            "runs/tiny_math, with the file config.json that a run writes."
        )
    if not files:
        raise ValueError(
            f"{short_path(run / FOLDER)!r} has no completions, so there is nothing to show. Run the recipe with "
            "log_completions: true. A generation is written after its last optimiser step."
        )
    return files


def records_of_step(run: Path, step: int) -> list[dict[str, Any]]:
    """The generations that an optimiser step trained on.

    Raises:
        ValueError: No generation was trained on at this step, or its file cannot be read.
    """
    files = files_of(run)
    records: list[dict[str, Any]] = []
    for file in reversed([file for file in files if file.first_step <= step]):
        record = read(file.path)
        if record["steps"][1] < step:
            break
        records.insert(0, record)
    if not records:
        last = read(files[-1].path)["steps"][1]
        raise ValueError(
            f"step={step} has no completions in {str(run / FOLDER)!r}. "
            f"Give a step from {files[0].first_step} to {last}."
        )
    return records


def write(run: Path, record: Mapping[str, Any]) -> None:
    """Write the record of a generation, which `RolloutLog` makes. A file of the same generation is replaced."""
    folder = run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    header = {name: value for name, value in record.items() if name != "groups"}
    # the record is a tree, so no cycle need be looked for
    lines = "".join(json.dumps(line, check_circular=False) + "\n" for line in [header, *record["groups"]])
    name = f"generation-{record['generation']:05}-step-{record['steps'][0]:05}.jsonl.gz"
    write_whole(folder / name, gzip.compress(lines.encode(), _QUICK, mtime=0))


def read(path: Path) -> dict[str, Any]:
    """The record of a generation, as it was passed to `write`.

    Raises:
        ValueError: The file cannot be read.
    """
    try:
        header, *groups = map(json.loads, gzip.decompress(path.read_bytes()).splitlines())
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ValueError(f"{str(path)!r} cannot be read ({error}). Delete this file to leave it out.") from None
    return {**header, "groups": groups}


def rewind(run: Path, step: int) -> None:
    """Remove the generations whose training began after `step`. A run that resumes at `step` writes them again."""
    for file in _files(run):
        if file.first_step > step:
            file.path.unlink()


def _files(run: Path) -> list[File]:
    found = []
    for path in (run / FOLDER).glob("generation-*"):
        if match := _NAME.fullmatch(path.name):
            found.append(File(int(match[1]), int(match[2]), path))
    return sorted(found)
