"""`results.json` and `curve.png`: the evaluations of all seeds in an output folder."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from matplotlib.figure import Figure

from ..shared.provenance import git_revision, installed_version
from ..shared.version import __version__
from ..shared.write_whole import write_whole
from .checkpoints import Evaluation, Progress, last_checkpoint, read_progress
from .folder import CURVE, LOCK, RESULTS
from .recipe import Plan

_PACKAGES = ("torch", "stable-baselines3", "gymnasium", "mujoco", "ale-py")


def finished_seeds(output: Path) -> dict[int, Progress]:
    """The finished seeds of `results.json` with their evaluations. Their checkpoints may be elsewhere or deleted.

    Raises:
        ValueError: The seeds in the file cannot be read.
    """
    try:
        runs = [run for run in json.loads((output / RESULTS).read_text())["seeds"] if run["finished"]]
        return {run["seed"]: Progress([Evaluation(**point) for point in run["curve"]]) for run in runs}
    except FileNotFoundError:
        return {}
    except (LookupError, TypeError) as error:
        raise ValueError(
            f"The seeds in {str(output / RESULTS)!r} cannot be read ({type(error).__name__}: {error}). The file is "
            "damaged or of another version. Restore it from a copy, or give another folder."
        ) from None


def write_results(output: Path, plan: Plan, command: Sequence[str] = ()) -> None:
    """Update `results.json` and `curve.png` from the last checkpoint of every seed in the folder.

    Finished seeds without a checkpoint keep their results.

    Args:
        output: Folder of the results.
        plan: The plan that the seeds follow.
        command: The words of the command, for new results.
    """
    with FileLock(output / LOCK):  # the seeds of one plan may be trained by several processes
        _write_results(output, plan, command)


def _write_results(output: Path, plan: Plan, command: Sequence[str]) -> None:
    try:
        results = json.loads((output / RESULTS).read_text())
    except FileNotFoundError:
        results = {
            "command": list(command),
            "gbpo": __version__,
            "git_revision": git_revision(),
            "versions": {name: installed_version(name) for name in _PACKAGES},
            "plan": dataclasses.asdict(plan),
        }
    runs = finished_seeds(output)
    for path in output.glob("seed-*"):
        number = path.name.removeprefix("seed-")
        if number.isdecimal() and (checkpoint := last_checkpoint(path)):
            runs[int(number)] = read_progress(checkpoint)
    runs = dict(sorted(runs.items()))
    results["seeds"] = [_seed_results(seed, progress, plan) for seed, progress in runs.items()]
    write_whole(output / RESULTS, json.dumps(results, indent=1) + "\n")
    write_whole(output / CURVE, _draw_curves(plan, runs))


def _seed_results(seed: int, progress: Progress, plan: Plan) -> dict[str, Any]:
    last = progress.curve[-1]
    return {
        "seed": seed,
        "finished": last.steps >= plan.steps,
        "steps": last.steps,
        "eval_return_mean": last.mean,
        "eval_return_std": last.std,
        "sampled_return_mean": None if last.sampled_returns is None else float(np.mean(last.sampled_returns)),
        "steps_per_second": last.steps / last.seconds if last.seconds else None,
        "curve": [dataclasses.asdict(evaluation) for evaluation in progress.curve],
    }


def _draw_curves(plan: Plan, runs: dict[int, Progress]) -> bytes:
    """Evaluation return against environment steps, one line per seed, as PNG."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for seed, progress in runs.items():
        steps, means = zip(*((evaluation.steps, evaluation.mean) for evaluation in progress.curve), strict=True)
        axis.plot(steps, means, marker=".", label=f"seed {seed}")
    axis.set_xlabel("environment steps")
    axis.set_ylabel(f"return, mean of {plan.eval_episodes} episodes")
    axis.set_title(f"{plan.env}, {plan.algorithm}")
    axis.grid(alpha=0.3)
    if runs:
        axis.legend(fontsize=8)
    png = io.BytesIO()
    figure.savefig(png, dpi=120, format="png")
    return png.getvalue()
