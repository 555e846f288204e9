"""`results.json`: everything that a comparison measured. The report is made from this file alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gbpo.shared.write_whole import write_whole

FILE = "results.json"


def label(setting: Mapping[str, Any]) -> str:
    """Name of a grid point, for example `"epsilon=0.2, num_iterations=4"`. Empty if there is no grid."""
    return ", ".join(f"{field}={value}" for field, value in setting.items())


@dataclass
class Evaluation:
    """How one model did on the held-out questions.

    Args:
        step: Optimiser step of the model.
        samples: Completions sampled per question, k.
        scores: Mean reward of the samples, per question.
        correct: Number of samples with reward 1, per question. Used for pass@k.
        majority: Reward of the most common answer among the samples, per question. None in an environment, where
            completions have no answer to vote on.
        greedy: Reward of the greedy completion, per question, without broken episodes.
        completions: First sample of each question, in the order of `Results.questions`. None if they were removed to
            shorten the file.
        mean_tokens: Mean length of the samples in tokens.
        truncated: Fraction of the samples that reached the token limit.
        kl_to_start: KL divergence from the starting model in nats per completion, estimated on the samples.
        unbroken: Number of samples per question without those whose episode is broken, which count nowhere. None
            without an environment.
        ungraded: Number of completions, sampled and greedy, that the reward left ungraded. They count as 0.
    """

    step: int
    samples: int
    scores: list[float]
    correct: list[int]
    majority: list[float] | None
    greedy: list[float]
    completions: list[str] | None
    mean_tokens: float
    truncated: float
    kl_to_start: float | None = None
    unbroken: list[int] | None = None
    ungraded: int = 0

    @property
    def counts(self) -> list[int]:
        """Number of samples that count, per question."""
        return [self.samples] * len(self.scores) if self.unbroken is None else self.unbroken

    @property
    def completed(self) -> int:
        """Number of completions, sampled and greedy."""
        return len(self.scores) * (self.samples + 1)

    @property
    def broken(self) -> int:
        """Number of broken episodes, sampled and greedy."""
        return self.completed - sum(self.counts) - len(self.greedy)


@dataclass
class Cell:
    """One run of a comparison: one algorithm at one grid point with one seed.

    Args:
        algorithm: Entry of `--algorithms`, for example `"gbpo:target_baseline=exact"`.
        setting: Grid point: value of each field. Empty if there is no grid.
        seed: Seed of the run.
        status: `"done"`, `"failed"` or `"missing"` (not run yet).
        folder: Folder of the run, relative to the folder of the comparison.
        command: Command that ran it.
        reason: Why the run failed, in one line; None if it did not fail.
        tail: Last lines printed by a failed run.
        seconds: Wall time of the whole process in seconds, including loading the model.
        train_seconds: Wall time of training in seconds, including validation.
        tokens: Tokens processed in training (TRL's `num_tokens`).
        peak_memory_gb: Peak memory of the accelerator; without an accelerator, peak resident memory of the process.
        updates_per_generation: Optimiser steps on each generation. None in files of earlier versions.
        completions_per_generation: Completions of each generation, over all ranks. None in files of earlier versions.
        series: Logged metrics by name. Each metric is a list with one entry per log, and None where a log lacks the
            metric. `"step"` is the optimiser step, `"elapsed"` the seconds since training began, `"eval_reward"` the
            validation reward.
        last: Scores of the final model on the test questions.
        best: Scores on the test questions of the checkpoint with the highest validation reward (the earliest if tied).
    """

    algorithm: str
    setting: dict[str, Any]
    seed: int
    status: str
    folder: str
    command: str
    reason: str | None = None
    tail: list[str] = field(default_factory=list)
    seconds: float | None = None
    train_seconds: float | None = None
    tokens: float | None = None
    peak_memory_gb: float | None = None
    updates_per_generation: float | None = None
    completions_per_generation: int | None = None
    series: dict[str, list[float | None]] = field(default_factory=dict)
    last: Evaluation | None = None
    best: Evaluation | None = None


@dataclass
class Results:
    """A comparison: its command, its machine and all of its runs.

    Args:
        command: Command that made the comparison.
        created: When the file was written (ISO 8601, UTC).
        git_revision: Commit of the code, with `-dirty` if it was modified; None outside a checkout.
        versions: Installed packages.
        hardware: `cpu`, `cores`, `memory_gb`, `gpus` (names).
        recipe: Path of the recipe.
        recipe_text: Text of the recipe.
        overrides: Fields set for every run, in the form of command-line arguments.
        algorithms: Algorithms in the order given. The first is the baseline.
        grid: Values of each field of the grid. Empty if there is no grid.
        seeds: Seeds in the order given.
        evaluation: Settings of the evaluation by name, and the numbers of validation and test questions.
        questions: Test questions, each with `prompt` and `gold` (the reference answer). Empty if they were removed to
            shorten the file.
        start: Scores of the starting model on the test questions.
        notes: Notes for the reader, for example on grid points where two algorithms cannot differ.
        cells: All runs, including failed and missing ones.
    """

    command: str
    created: str
    git_revision: str | None
    versions: dict[str, str | None]
    hardware: dict[str, Any]
    recipe: str
    recipe_text: str
    overrides: list[str]
    algorithms: list[str]
    grid: dict[str, list[Any]]
    seeds: list[int]
    evaluation: dict[str, Any]
    questions: list[dict[str, str]]
    start: Evaluation | None
    notes: list[str]
    cells: list[Cell]

    def save(self, folder: Path) -> None:
        """Write `results.json` into the folder."""
        write_whole(folder / FILE, json.dumps(dataclasses.asdict(self)) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Results:
        """Read the `results.json` of a comparison.

        Raises:
            ValueError: The file is missing or cannot be read.
        """
        path = folder / FILE
        if not path.is_file():
            raise ValueError(
                f"{str(folder)!r} contains no {FILE}, so there is nothing to report. Give the --output folder of "
                "evals.compare."
            )
        try:
            fields = json.loads(path.read_text())
            fields["start"] = fields["start"] and Evaluation(**fields["start"])
            fields["cells"] = [_cell(**cell) for cell in fields["cells"]]
            return cls(**fields)
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise ValueError(
                f"{str(path)!r} cannot be read by this version: {error}. Run the same evals.compare command again; "
                "finished runs are kept."
            ) from None

    def settings(self) -> list[dict[str, Any]]:
        """Grid points in the order of the cells. Without a grid, a single empty point."""
        found: list[dict[str, Any]] = []
        for cell in self.cells:
            if cell.setting not in found:
                found.append(cell.setting)
        return found

    def done(self, algorithm: str, setting: dict[str, Any]) -> list[Cell]:
        """Finished cells of an algorithm at a grid point, ordered by seed."""
        cells = [c for c in self.cells if (c.algorithm, c.setting, c.status) == (algorithm, setting, "done")]
        return sorted(cells, key=lambda cell: self.seeds.index(cell.seed))


def _cell(last: dict[str, Any] | None, best: dict[str, Any] | None, **fields: Any) -> Cell:
    return Cell(**fields, last=Evaluation(**last) if last else None, best=Evaluation(**best) if best else None)
