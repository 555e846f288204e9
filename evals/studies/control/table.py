"""`python -m evals.studies.control.table`: prints the table of the study in Markdown and draws its curves.

Both come from the results of `python -m evals.control` beside this file. The curves go to `curves.png`.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from gbpo.control.recipe import ALGORITHMS

from ...control import draw_curves

STUDY = Path(__file__).parent
PUBLISHED = {  # study → returns of BPO and PPO in the paper
    "hopper": "≈ 3,000 and ≈ 1,000 at 1.5M (figure)",
    "swimmer": "≈ 356 and ≈ 362 at 20M (figure)",
    "ant": "4,871 and 4,230 at 20M (text)",
    "humanoid": "≈ 1,700 and ≈ 700 at 35M (figure)",
    "asterix": "9,472 and 7,123 at 10M (text)",
}
ORDER = (
    "cartpole",
    "acrobot",
    "lunarlander",
    "pendulum",
    "hopper",
    "swimmer",
    "halfcheetah",
    "walker2d",
    "ant",
    "humanoid",
    "asterix",
)
HEAD = "| task | steps | seeds | BPO | PPO | BPO − PPO | published: BPO and PPO | sampled actions: BPO, PPO | hours |"


def studies() -> dict[str, dict[str, Any]]:
    """The results of each task by the name of its file; with several lengths, the shorter one first."""
    found = {file.stem: json.loads(file.read_text()) for file in STUDY.glob("*.json")}
    return dict(sorted(found.items(), key=lambda item: (ORDER.index(_recipe(item[0])), item[1]["steps"])))


def table() -> list[str]:
    """The lines of the table."""
    return [HEAD, "|---|" + "---:|" * 5 + "---|" + "---:|" * 2, *(_row(*item) for item in studies().items())]


def draw() -> Figure:
    """Draw the curves of each task in a panel of its own."""
    found = list(studies().values())
    rows = -(-len(found) // 2)
    figure = Figure(figsize=(10, 2.7 * rows), layout="constrained")
    panels = figure.subplots(rows, 2).flat
    for comparison in found:
        draw_curves(next(panels), comparison)
    for empty in panels:
        empty.remove()
    return figure


def hours(comparison: dict[str, Any]) -> float:
    """Time of all runs of a row, from the median steps per second of each algorithm."""
    steps = comparison["steps"] * len(comparison["seeds"])
    return sum(steps / comparison[name]["steps_per_second"] for name in ALGORITHMS) / 3600


def _row(study: str, comparison: dict[str, Any]) -> str:
    both = [comparison[name] for name in ALGORITHMS]
    sampled = [fmean(_sampled(found)) for found in both]
    cells = [
        comparison["env"],
        f"{comparison['steps']:,}",
        str(len(comparison["seeds"])),
        *(_interval(found["iqm"]) for found in both),
        _interval(comparison["difference"]),
        PUBLISHED.get(_recipe(study), "—"),
        ", ".join(f"{value:,.0f}" for value in sampled),
        f"{hours(comparison):.2g}",
    ]
    return f"| {' | '.join(cells)} |"


def _sampled(found: dict[str, Any]) -> list[float]:
    """Returns of each seed with sampled actions: of the last evaluation, or else of the last training episodes."""
    evaluated = found.get("sampled_return_means", [None])
    return found["train_return_means"] if None in evaluated else evaluated


def _recipe(study: str) -> str:
    """Name of the recipe of a study. The name of a file may end with the number of steps."""
    return study.partition("-")[0]


def _interval(found: dict[str, Any]) -> str:
    bounds = "" if found["low"] is None else f" [{found['low']:,.0f}, {found['high']:,.0f}]"
    return f"{found['estimate']:,.0f}{bounds}"


def main() -> None:
    """Print the table and write the curves."""
    print("\n".join(table()))
    draw().savefig(STUDY / "curves.png", dpi=110)


if __name__ == "__main__":
    main()
