"""The folder of a control run: `results.json`, `curve.png`, and `seed-N/checkpoint-STEPS/` for each seed."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from matplotlib.figure import Figure

from .. import __version__
from ..shared.provenance import git_revision, installed_version
from .recipe import Command, Plan

RESULTS, CURVE, PROGRESS = "results.json", "curve.png", "progress.json"

_PACKAGES = ("torch", "stable-baselines3", "gymnasium", "mujoco", "ale-py")


@dataclass(frozen=True)
class Point:
    """An evaluation.

    Args:
        steps: Environment steps trained before it.
        seconds: Of training until then, evaluations and checkpoints left out.
        eval_returns: Undiscounted return of each episode.
        train_return_mean: Mean return of the last 100 training episodes; None before the first has ended.
    """

    steps: int
    seconds: float
    eval_returns: list[float]
    train_return_mean: float | None

    @property
    def mean(self) -> float:
        return float(np.mean(self.eval_returns))

    @property
    def std(self) -> float:
        return float(np.std(self.eval_returns))


@dataclass
class Progress:
    """How far a seed has come: its curve, of which the last point is its checkpoint's."""

    curve: list[Point] = field(default_factory=list)

    @property
    def steps(self) -> int:
        return self.curve[-1].steps if self.curve else 0

    @property
    def seconds(self) -> float:
        return self.curve[-1].seconds if self.curve else 0.0


def check(output: Path, plan: Plan) -> None:
    """Raise `ValueError` unless `output` is free or holds this very plan, so that nothing is written over."""
    if output.exists() and not output.is_dir():
        raise ValueError(f"output={str(output)!r} is a file. Give a folder.")
    if not output.exists() or not any(output.iterdir()):
        return
    try:
        before = json.loads((output / RESULTS).read_text())["plan"]
    except (OSError, ValueError, LookupError, TypeError):
        raise ValueError(
            f"output={str(output)!r} holds files that are not of a control run, among which this one's would get lost. "
            "Give another folder."
        ) from None
    for name, now in _as_json(dataclasses.asdict(plan)).items():
        if before.get(name) != now:
            raise ValueError(
                f"output={str(output)!r} holds a run with {name}={before.get(name)}, this one has {now}. Give another "
                "folder, or the same settings to go on with that run."
            )


def claim(command: Command) -> list[FileLock]:
    """Make the folder and hold the seeds against another process that would train them; as long as they are kept.

    Raises:
        ValueError: The folder cannot be written, or another process holds one of the seeds.
    """
    locks = []
    try:
        for seed in command.seeds:
            seed_folder(command.output, seed).mkdir(parents=True, exist_ok=True)
            locks.append(FileLock(seed_folder(command.output, seed) / "lock"))
            locks[-1].acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"seed={seed} in {str(command.output)!r} is being trained by another process. Wait for it, or give other "
            "seeds."
        ) from None
    except OSError as error:
        raise ValueError(
            f"output={str(command.output)!r} cannot be written: {error.strerror}. Give another folder."
        ) from None
    return locks


def seed_folder(output: Path, seed: int) -> Path:
    return output / f"seed-{seed}"


def last_checkpoint(seed_folder: Path) -> Path | None:
    """The checkpoint folder with the most steps; they are renamed when whole, so that half of one is never found."""
    found = sorted(seed_folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    return found[-1] if found else None


def read_progress(checkpoint: Path | None) -> Progress:
    if checkpoint is None:
        return Progress()
    return Progress([Point(**point) for point in json.loads((checkpoint / PROGRESS).read_text())])


def write_checkpoint(seed_folder: Path, progress: Progress, save: Callable[[Path], None]) -> Path:
    """Write `checkpoint-STEPS` in place of the one before and return it.

    Args:
        seed_folder: Of the seed.
        progress: Whose last point is the model's.
        save: Writes the model into the folder it is given.
    """
    before = last_checkpoint(seed_folder)
    part = seed_folder / "part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    save(part)
    (part / PROGRESS).write_text(json.dumps([dataclasses.asdict(point) for point in progress.curve]))
    whole = part.rename(seed_folder / f"checkpoint-{progress.steps}")
    if before is not None:
        shutil.rmtree(before)
    return whole


def write_results(output: Path, plan: Plan) -> None:
    """Bring `results.json` and `curve.png` up to date with the checkpoints of all seeds in the folder."""
    try:
        results = json.loads((output / RESULTS).read_text())
    except FileNotFoundError:
        results = {
            "command": sys.argv,
            "gbpo": __version__,
            "git_revision": git_revision(),
            "versions": {name: installed_version(name) for name in _PACKAGES},
            "plan": dataclasses.asdict(plan),
        }
    folders = sorted(output.glob("seed-*"), key=lambda path: int(path.name.removeprefix("seed-")))
    runs = {int(path.name.removeprefix("seed-")): read_progress(last_checkpoint(path)) for path in folders}
    runs = {seed: progress for seed, progress in runs.items() if progress.curve}
    results["seeds"] = [_of_seed(seed, progress, plan) for seed, progress in runs.items()]
    _replace(output / RESULTS, (json.dumps(results, indent=1) + "\n").encode())
    _draw(output / CURVE, plan, runs)


def _of_seed(seed: int, progress: Progress, plan: Plan) -> dict[str, Any]:
    last = progress.curve[-1]
    return {
        "seed": seed,
        "finished": last.steps >= plan.steps,
        "steps": last.steps,
        "eval_return_mean": last.mean,
        "eval_return_std": last.std,
        "steps_per_second": last.steps / last.seconds if last.seconds else None,
        "curve": [dataclasses.asdict(point) for point in progress.curve],
    }


def _draw(path: Path, plan: Plan, runs: dict[int, Progress]) -> None:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for seed, progress in runs.items():
        steps, means = zip(*((point.steps, point.mean) for point in progress.curve), strict=True)
        axis.plot(steps, means, marker=".", label=f"seed {seed}")
    axis.set_xlabel("environment steps")
    axis.set_ylabel(f"return, mean of {plan.eval_episodes} episodes")
    axis.set_title(f"{plan.env}, {plan.algorithm}")
    axis.grid(alpha=0.3)
    if runs:
        axis.legend(fontsize=8)
    temporary = path.with_name(f"{os.getpid()}-{path.name}")
    figure.savefig(temporary, dpi=120)
    temporary.replace(path)


def _replace(path: Path, content: bytes) -> None:
    """Write a file that other processes write too, never half of it."""
    temporary = path.with_name(f"{os.getpid()}-{path.name}")
    temporary.write_bytes(content)
    temporary.replace(path)


def _as_json(values: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(values))
