"""Compare BPO with PPO in control.

    python -m evals.control recipes/control/hopper.yaml --seeds 0 1 2 3 4 --workers 2

trains every recipe with both algorithms on every seed. Each run is a `python -m gbpo.control` process on one thread.
The command writes `hopper.json` and `hopper.png` to `--output`. With `--steps 3000000` the names are
`hopper-3000000.json` and `hopper-3000000.png`. The files contain interquartile means over seeds and evaluation episodes
with 95 % intervals, the difference between the algorithms, and the curves. Results of another study are not
overwritten. Run the same command again to continue an interrupted study. Every run then resumes at its last checkpoint.
On Linux, its runs end with it.

To continue a study on another machine, copy `hopper-bpo/results.json` and `hopper-ppo/results.json` from `--runs`.
Finished seeds are not run again. To resume an unfinished seed there, also copy its folder, for example
`hopper-bpo/seed-3`.

Exit status: 0 if every run finished, 1 if a run failed, 2 for bad input.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from gbpo.control.folder import RESULTS, check
from gbpo.control.recipe import ALGORITHMS, Plan, parse
from gbpo.shared.command_line import OneLineErrorParser, seed
from gbpo.shared.pages.palette import PALETTE
from gbpo.shared.write_whole import write_whole

from .shared.estimates import Interval, iqm_difference, iqm_interval, probability_of_improvement

_PR_SET_PDEATHSIG = 1


def main(argv: Sequence[str] | None = None) -> None:
    """Run the missing trainings and write the comparison of each recipe."""
    options = _parser().parse_args(argv)
    options.output = options.output or options.runs
    names = [recipe.stem + ("" if options.steps is None else f"-{options.steps}") for recipe in options.recipes]
    jobs = []  # both algorithms of a seed come together, so that an interrupted study has pairs
    try:
        if options.workers < 1:
            raise ValueError(f"workers={options.workers} would train nothing. Write an integer above 0.")
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"Two recipes are named {repeated[0]!r}, so they would share a folder. Rename one.")
        for recipe, name in zip(options.recipes, names, strict=True):
            for seed in dict.fromkeys(options.seeds):
                for algorithm in ALGORITHMS:
                    job = [str(recipe), "--algorithm", algorithm, "--seeds", str(seed)]
                    job += ["--output", str(options.runs / f"{name}-{algorithm}")]
                    job += [] if options.steps is None else ["--steps", str(options.steps)]
                    command = parse(job)
                    check(command.output, command.plan)
                    _check_published(options.output / f"{name}.json", command.plan, options.seeds)
                    jobs.append(job)
        for folder in (options.runs, options.output):
            folder.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        print(f"evals.control: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    with ThreadPoolExecutor(options.workers) as pool:
        failed = [job for job, code in zip(jobs, pool.map(_train, jobs), strict=True) if code]
    for name in names:
        files = {algorithm: options.runs / f"{name}-{algorithm}" / RESULTS for algorithm in ALGORITHMS}
        if not all(file.is_file() for file in files.values()):
            continue  # a run could not start; the failure is printed below
        results = {algorithm: json.loads(file.read_text()) for algorithm, file in files.items()}
        comparison = compare(results)
        write_whole(options.output / f"{name}.json", json.dumps(comparison, indent=1) + "\n")
        draw(comparison).savefig(options.output / f"{name}.png", dpi=150)
        print(describe(comparison))
    for job in failed:
        lines = _log(job).read_text().split("\n")
        reason = next((line for line in reversed(lines) if line.strip()), "no output")
        print(f"failed: python -m gbpo.control {' '.join(job)}: {reason}", file=sys.stderr)
    raise SystemExit(1 if failed else 0)


def _check_published(file: Path, plan: Plan, seeds: list[int]) -> None:
    """Check that a study of `plan` on these seeds may write `file`, so that no other result is overwritten."""
    if not file.is_file():
        return
    try:
        existing = json.loads(file.read_text())
        lost = sorted(set(existing["seeds"]) - set(seeds))
        existing_plan = existing[plan.algorithm]["plan"] if existing["seeds"] else None
    except (ValueError, LookupError, TypeError):
        raise ValueError(f"{file} is not a study, and it would be lost. Give another --output.") from None
    if lost:
        raise ValueError(
            f"{file} holds seeds {lost}, which would be lost. Add them to --seeds, or give another --output."
        )
    if existing_plan and existing_plan != json.loads(json.dumps(dataclasses.asdict(plan))):
        raise ValueError(f"{file} holds a study with other settings, which would be lost. Give another --output.")


def compare(results: dict[str, Any]) -> dict[str, Any]:
    """Compare the runs of both algorithms on the seeds for which both runs finished.

    Args:
        results: Content of `results.json` of `python -m gbpo.control`, by algorithm.

    Returns:
        Content of the JSON file of the study.
    """
    finished = [{run["seed"]: run for run in results[name]["seeds"] if run["finished"]} for name in ALGORITHMS]
    seeds = sorted(set.intersection(*map(set, finished)))
    comparison: dict[str, Any] = {
        "env": results["bpo"]["plan"]["env"],
        "steps": results["bpo"]["plan"]["steps"],
        "seeds": seeds,
    }
    if not seeds:
        return comparison
    last: list[list[list[float]]] = []
    for name, runs in zip(ALGORITHMS, finished, strict=True):
        curves = [runs[seed]["curve"] for seed in seeds]  # with the same steps, because all runs have the same plan
        last.append([curve[-1]["eval_returns"] for curve in curves])
        comparison[name] = {
            "iqm": dataclasses.asdict(iqm_interval(last[-1])),
            "eval_return_means": [runs[seed]["eval_return_mean"] for seed in seeds],
            "sampled_return_means": [runs[seed].get("sampled_return_mean") for seed in seeds],
            "train_return_means": [curve[-1]["train_return_mean"] for curve in curves],
            "steps_per_second": median(runs[seed]["steps_per_second"] for seed in seeds),
            "plan": results[name]["plan"],
            "git_revision": results[name]["git_revision"],
            "versions": results[name]["versions"],
            "curve": [
                {"steps": points[0]["steps"], **dataclasses.asdict(iqm_interval([p["eval_returns"] for p in points]))}
                for points in zip(*curves, strict=True)
            ],
        }
    bpo, ppo = (comparison[name]["eval_return_means"] for name in ALGORITHMS)
    comparison["difference"] = dataclasses.asdict(iqm_difference(last[0], last[1]))
    comparison["probability_of_improvement"] = dataclasses.asdict(probability_of_improvement(bpo, ppo))
    return comparison


def describe(comparison: dict[str, Any]) -> str:
    """One line with the task, both interquartile means, their difference, sampled returns and the relative speed."""
    head = f"{comparison['env']}, {comparison['steps']} steps, {_seeds(comparison)}"
    if not comparison["seeds"]:
        return f"{head}: no seed was finished by both algorithms"
    parts = [f"{name} {_text(comparison[name]['iqm'])}" for name in ALGORITHMS]
    speed = comparison["bpo"]["steps_per_second"] / comparison["ppo"]["steps_per_second"]
    parts.append(f"difference {_text(comparison['difference'])}")
    sampled = [comparison[name]["sampled_return_means"] for name in ALGORITHMS]
    if None not in sampled[0] + sampled[1]:
        parts.append("with sampled actions " + " and ".join(f"{np.mean(returns):.1f}" for returns in sampled))
    return f"{head}: {', '.join(parts)}, speed {speed:.2f}"


def draw(comparison: dict[str, Any]) -> Figure:
    """Draw the interquartile mean of the evaluation returns over environment steps, with its interval."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    draw_curves(figure.subplots(), comparison)
    return figure


def draw_curves(axis: Axes, comparison: dict[str, Any]) -> None:
    """Draw the curves of a study into `axis`.

    Intervals may be very wide, for example with two seeds. The plot therefore ends above and below the curves at a
    distance equal to the height of the curves.
    """
    for name, (colour, _) in zip(reversed(ALGORITHMS), PALETTE, strict=False):
        points = comparison.get(name, {}).get("curve", [])
        steps = [point["steps"] for point in points]
        axis.plot(steps, [point["estimate"] for point in points], color=colour, label=name.upper())
        if points and points[0]["low"] is not None:
            low, high = ([point[side] for point in points] for side in ("low", "high"))
            axis.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    curves = np.concatenate([line.get_ydata() for line in axis.lines])
    if curves.size:
        shown, height = axis.get_ylim(), np.ptp(curves)
        axis.set_ylim(max(shown[0], curves.min() - height), min(shown[1], curves.max() + height))
    interval = ", 95 % interval" if len(comparison["seeds"]) > 1 else ""
    axis.set_title(f"{comparison['env']}, {_seeds(comparison)}, IQM{interval}", fontsize="medium")
    axis.set_xlabel("environment steps")
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.set_ylabel("evaluation return")
    axis.grid(alpha=0.3)
    axis.legend()


def _train(job: list[str]) -> int:
    with _log(job).open("a") as file:
        command = [sys.executable, "-m", "gbpo.control", *job]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        end = _end_with_the_study if sys.platform == "linux" else None
        return subprocess.run(command, env=environment, stdout=file, stderr=file, preexec_fn=end).returncode


def _end_with_the_study() -> None:
    """Let the kernel kill this run when the study ends, so that the next study can lock the seed and resume it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _log(job: list[str]) -> Path:
    """Log file of a run."""
    return Path(job[job.index("--output") + 1] + f"-seed-{job[job.index('--seeds') + 1]}.log")


def _seeds(comparison: dict[str, Any]) -> str:
    n = len(comparison["seeds"])
    return f"{n} seed" if n == 1 else f"{n} seeds"


def _text(interval: dict[str, Any]) -> str:
    found = Interval(**interval)
    return f"{found.estimate:.1f}" + ("" if found.low is None else f" [{found.low:.1f}, {found.high:.1f}]")


def _parser() -> OneLineErrorParser:
    parser = OneLineErrorParser(prog="python -m evals.control", description=__doc__.partition("\n\n")[0])
    parser.add_argument("recipes", nargs="+", type=Path, help="recipes of gbpo.control")
    parser.add_argument("--seeds", type=seed, nargs="+", default=[0, 1, 2, 3, 4], help="seeds of both algorithms")
    parser.add_argument("--steps", type=int, help="environment steps per run (default: the recipe's)")
    parser.add_argument("--workers", type=int, default=1, help="runs at the same time (1)")
    parser.add_argument("--runs", type=Path, default=Path("runs/control"), help="folder of the runs")
    parser.add_argument("--output", type=Path, help="folder of the results (that of the runs)")
    return parser


if __name__ == "__main__":
    main()
