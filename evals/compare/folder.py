"""A comparison as it lies in its folder: what is compared, and where each part of it is kept."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gbpo.run.recipe.parsing import Recipe

from .cells import Point

RECIPE, VALIDATION, TEST, START = "recipe.yaml", "validation.jsonl", "test.jsonl", "start.json"

# The metrics of a run that its report draws
SERIES = (
    "step",
    "elapsed",
    "num_tokens",
    "reward",
    "eval_reward",
    "entropy",
    "grad_norm",
    "gbpo/outside_bounds",
    "gbpo/ratio_p01",
    "gbpo/ratio_p50",
    "gbpo/ratio_p99",
    "clip_ratio/region_mean",
    "completions/mean_length",
    "frac_reward_zero_std",
)


@dataclass(frozen=True)
class Home:
    """The files of one cell."""

    path: Path

    @property
    def run(self) -> Path:
        """The folder that the run writes."""
        return self.path / "run"

    @property
    def log(self) -> Path:
        """What the run printed."""
        return self.path / "output.log"

    @property
    def evaluation(self) -> Path:
        """What `evals.evaluate` wrote: the final model, then the best checkpoint if there is one."""
        return self.path / "evaluation.json"

    @property
    def record(self) -> dict[str, Any]:
        """`status` (`"done"`, `"failed"` or `"missing"`), `seconds` over all attempts, `reason`."""
        path = self.path / "cell.json"
        return json.loads(path.read_text()) if path.is_file() else {"status": "missing", "seconds": 0.0}

    def write_record(self, **record: Any) -> None:
        """Keep how the cell stands."""
        write_json(self.path / "cell.json", record)

    @property
    def is_done(self) -> bool:
        """Whether the run and its evaluation are done."""
        return self.record["status"] == "done" and self.evaluation.is_file()

    def best_checkpoint(self) -> Path | None:
        """The checkpoint of highest validation reward, the earliest of equals; None where none was kept."""
        states = sorted(self.run.glob("checkpoint-*/trainer_state.json"), key=lambda path: path.stat().st_mtime)
        if not states:
            return None
        step = json.loads(states[-1].read_text()).get("best_global_step")
        checkpoint = self.run / f"checkpoint-{step}"
        return checkpoint if any(checkpoint.glob("*.safetensors")) else None


@dataclass(frozen=True)
class Comparison:
    """What is compared, and how it is run.

    Args:
        folder: Where everything lies.
        recipe: The recipe as it was given.
        overrides: Fields for every cell, as on the command line.
        algorithms: Their names; the first is the baseline.
        grid: Field to its values.
        seeds: Seeds of every algorithm at every point of the grid.
        points: The algorithms at the points of the grid.
        eval_steps: Optimiser steps from one validation to the next; None for the recipe's, or 20 validations.
        evaluation: Flags of `evals.evaluate` beside models, data and output.
        launcher: Command that `launch/gbpo.py` is given to.
        jobs: Cells that run at a time.
        notes: What a reader must know.
        command: The command that made it.
    """

    folder: Path
    recipe: Path
    overrides: list[str]
    algorithms: list[str]
    grid: dict[str, list[Any]]
    seeds: list[int]
    points: list[Point]
    eval_steps: float | None
    evaluation: list[str]
    launcher: list[str]
    jobs: int
    notes: list[str]
    command: str

    @property
    def base(self) -> Recipe:
        """The recipe of the first point: what all of them share."""
        return self.points[0].recipe

    @property
    def cells(self) -> list[tuple[Point, int]]:
        """Every point with every seed."""
        return [(point, seed) for point in self.points for seed in self.seeds]

    def home(self, point: Point, seed: int) -> Home:
        """Where a cell lies."""
        return Home(self.folder / point.folder(seed))


def write_json(path: Path, value: Any) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(json.dumps(value, indent=1, default=str) + "\n")
    temporary.replace(path)
