"""The plan of a comparison: its runs, how they are evaluated, and its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gbpo.run.recipe.parsing import Recipe

from .cell_folder import CellFolder
from .point import Point

# Files in the folder of a comparison
RECIPE, VALIDATION, TEST, START = "recipe.yaml", "validation.jsonl", "test.jsonl", "start.json"


@dataclass(frozen=True)
class ComparisonPlan:
    """The runs of a comparison, and how to start and evaluate them.

    Args:
        folder: Folder of the comparison.
        recipe: Path of the recipe.
        overrides: Fields set for every run, in the form of command-line arguments.
        algorithms: Names of the algorithms. The first is the baseline.
        grid: Values of each field of the grid.
        seeds: Seeds that every algorithm is run with at every grid point.
        points: The algorithms at the grid points.
        eval_steps: Optimiser steps between validations. None: the recipe's value, or 20 validations per run if the
            recipe has none.
        evaluation: The flags for `evals.evaluate`, except the models, the data and the output.
        launcher: Command that starts `launch/gbpo.py`.
        jobs: Number of runs at the same time.
        notes: Notes for the reader of the report.
        command: Command line of the comparison.
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
        """The recipe of the first point. All points share its data and model."""
        return self.points[0].recipe

    @property
    def cells(self) -> list[tuple[Point, int]]:
        """Every point with every seed."""
        return [(point, seed) for point in self.points for seed in self.seeds]

    def cell_folder(self, point: Point, seed: int) -> CellFolder:
        """Folder of a cell."""
        return CellFolder(self.folder / point.folder(seed))
