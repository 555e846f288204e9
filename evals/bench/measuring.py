"""What all benches share: measurements with their spread, the machine, tables and JSON."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from gbpo.run.output import folder
from gbpo.shared.provenance import git_revision

from ..shared import hardware


@dataclass(frozen=True)
class Measurement:
    """The same quantity, measured some times."""

    name: str
    values: list[float]
    unit: str

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "median": _or_none(self.median),
            "min": _or_none(min(self.values)),
            "max": _or_none(max(self.values)),
            "unit": self.unit,
            "repeats": len(self.values),
        }


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has no infinity


@dataclass(frozen=True)
class Findings:
    """What a bench found: `rows` for the table, `results` for the JSON file, notes for both readers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    results: Any
    notes: Sequence[str] = ()


def findings(measurements: Sequence[Measurement], notes: Sequence[str] = ()) -> Findings:
    """A table of names, medians and spreads."""
    rows = [(m.name, f"{m.median:.4g} {m.unit}", spread(m.values)) for m in measurements]
    results = {"measurements": [m.as_json() for m in measurements], "notes": list(notes)}
    return Findings(("name", "median", "min..max"), rows, results, notes)


def spread(values: Sequence[float]) -> str:
    return f"{min(values):.4g}..{max(values):.4g}"


def seconds(work: Callable[[], Any], repeats: int) -> list[float]:
    """Wall seconds of each of `repeats` calls."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return taken


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """This process, and what it starts, bound to one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def machine(argv: Sequence[str]) -> dict[str, Any]:
    """What a number depends on beside the code: command, hardware, threads and versions."""
    return {
        "command": shlex.join(["python", "-m", "evals.bench", *argv]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_revision": git_revision(),
        "hardware": hardware.describe(),
        "threads": torch.get_num_threads(),
        "versions": {"python": sys.version.split()[0], **folder.versions()},
    }


def describe(machine: dict[str, Any]) -> str:
    """The machine in a line or two."""
    where = machine["hardware"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    gpus = "".join(f", {name}" for name in where["gpus"])
    return (
        f"{where['cpu']}, {where['cores']} cores, {machine['threads']} threads of torch, "
        f"{where['memory_gb']:g} GB{gpus}\n{versions}"
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, the first to the left, the others to the right."""
    lines = [columns, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )


def write(path: Path, results: Any, machine: dict[str, Any]) -> None:
    """Write a bench's results with the machine: a list of objects keeps its form, each object carries it."""
    whole = [{**result, **machine} for result in results] if isinstance(results, list) else {**results, **machine}
    path.write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n")
