"""Shared by all benchmarks: measurements, the description of the machine, tables and JSON."""

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

from gbpo.run.output.folder import versions
from gbpo.shared.hardware import describe_hardware
from gbpo.shared.provenance import git_revision
from gbpo.shared.write_whole import write_whole


@dataclass(frozen=True)
class Measurement:
    """Repeated measurements of one quantity."""

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
class BenchResult:
    """Result of a benchmark.

    Args:
        columns: Heads of the printed table.
        rows: Rows of the printed table.
        results: Content of the JSON file.
        notes: Notes printed below the table.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    results: Any
    notes: Sequence[str] = ()


def bench_result(measurements: Sequence[Measurement], notes: Sequence[str] = ()) -> BenchResult:
    """Make a table of names, medians and ranges."""
    rows = [(m.name, f"{m.median:.4g} {m.unit}", spread(m.values)) for m in measurements]
    results = {"measurements": [m.as_json() for m in measurements], "notes": list(notes)}
    return BenchResult(("name", "median", "min..max"), rows, results, notes)


def spread(values: Sequence[float]) -> str:
    """The range of the values as text."""
    return f"{min(values):.4g}..{max(values):.4g}"


def seconds(work: Callable[[], Any], repeats: int) -> list[float]:
    """Wall time of each of `repeats` calls in seconds."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return taken


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Bind this process and its child processes to one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def machine(argv: Sequence[str]) -> dict[str, Any]:
    """Command, hardware, number of threads and package versions of a measurement."""
    return {
        "command": shlex.join(["python", "-m", "evals.bench", *argv]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_revision": git_revision(),
        "hardware": describe_hardware(),
        "threads": torch.get_num_threads(),
        "versions": {"python": sys.version.split()[0], **versions()},
    }


def describe(machine: dict[str, Any]) -> str:
    """The machine as text."""
    where = machine["hardware"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    gpus = "".join(f", {name}" for name in where["gpus"])
    return (
        f"{where['cpu']}, {where['cores']} cores, {machine['threads']} torch threads, "
        f"{where['memory_gb']:g} GB{gpus}\n{versions}"
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table. The first column is left-aligned, the others are right-aligned."""
    lines = [columns, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )


def write(path: Path, results: Any, machine: dict[str, Any]) -> None:
    """Write results as JSON together with the machine. In a list, every object gets the description of the machine."""
    whole = [{**result, **machine} for result in results] if isinstance(results, list) else {**results, **machine}
    write_whole(path, json.dumps(whole, indent=2, ensure_ascii=False) + "\n")
