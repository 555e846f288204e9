"""What a comparison leaves behind: `results.json`, the one file that the report is made from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE = "results.json"


def label(setting: Mapping[str, Any]) -> str:
    """A point of the grid as it is written on the command line; empty without a grid."""
    return ", ".join(f"{field}={value}" for field, value in setting.items())


@dataclass
class Evaluation:
    """One model on the held-out questions.

    Args:
        step: Optimiser step that the model was saved at.
        samples: Completions sampled for each question, k.
        scores: Mean reward of a question's samples, by question.
        correct: Samples of a question with reward 1, by question; what pass@k is made from.
        majority: Reward of the commonest answer of a question's samples, by question.
        greedy: Reward of the greedy completion, by question.
        completions: The first sample of each question, in the order of `Results.questions`; None in a shortened file.
        mean_tokens: Mean length of the samples.
        truncated: Share of the samples cut off by the token limit.
        kl_to_start: KL divergence from the starting model in nats per completion, estimated on the samples.
    """

    step: int
    samples: int
    scores: list[float]
    correct: list[int]
    majority: list[float]
    greedy: list[float]
    completions: list[str] | None
    mean_tokens: float
    truncated: float
    kl_to_start: float | None = None


@dataclass
class Cell:
    """One run of a comparison.

    Args:
        algorithm: As given to `--algorithms`, for example `"gbpo:target_baseline=exact"`.
        setting: The point of the grid, by field; empty without a grid.
        seed: The run's seed.
        status: `"done"`, `"failed"` or `"missing"` (not run yet).
        folder: The run's folder, relative to the comparison's.
        command: What was run.
        reason: Why it failed, one line; None otherwise.
        tail: Last lines that a failed run printed.
        seconds: Wall time of the whole process, model loading included.
        train_seconds: Wall time of the training alone, in-training evaluation included.
        tokens: Tokens generated and read in training (TRL's `num_tokens`).
        peak_memory_gb: Of the accelerator where there is one, else the resident memory of the process.
        series: Metrics of the run by name, each a list over the logging steps with None where a step does not log it;
            `"step"` is the optimiser step, `"elapsed"` the seconds since training began, `"eval_reward"` the validation
            reward.
        last: The final model on the test questions.
        best: The checkpoint of highest validation reward, the earliest of equals, on the test questions.
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
    series: dict[str, list[float | None]] = field(default_factory=dict)
    last: Evaluation | None = None
    best: Evaluation | None = None


@dataclass
class Results:
    """A comparison: what was asked for, on what machine, and every cell.

    Args:
        command: The command that made it.
        created: When the file was written, ISO 8601, UTC.
        git_revision: Of the code, with `-dirty` when it was changed; None outside a checkout.
        versions: Installed packages.
        hardware: `cpu`, `cores`, `memory_gb`, `gpus` (names).
        recipe: Path of the recipe.
        recipe_text: Its text.
        overrides: Fields given for every cell, as on the command line.
        algorithms: In the order given; the first is the baseline that the others are held against.
        grid: Field to its values; empty without a grid.
        seeds: In the order given.
        evaluation: The sampling settings of the evaluation, by name, with the numbers of validation and test questions.
        questions: The test questions, each with `prompt` and `gold`; empty in a shortened file.
        start: The starting model on the test questions.
        notes: Lines that a reader must know, for example points of the grid where two algorithms cannot differ.
        cells: All of them, whatever their status.
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
        """Write `results.json`, whole or not at all."""
        temporary = folder / f"{FILE}.new"
        temporary.write_text(json.dumps(dataclasses.asdict(self)) + "\n")
        temporary.replace(folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> Results:
        """Read the `results.json` of a comparison.

        Raises:
            ValueError: There is none, or it is not whole.
        """
        path = folder / FILE
        if not path.is_file():
            raise ValueError(f"{str(folder)!r} holds no {FILE}. Give the --output folder of evals.compare.")
        try:
            fields = json.loads(path.read_text())
            fields["start"] = fields["start"] and Evaluation(**fields["start"])
            fields["cells"] = [_cell(**cell) for cell in fields["cells"]]
            return cls(**fields)
        except (json.JSONDecodeError, TypeError, KeyError) as error:
            raise ValueError(
                f"{str(path)!r} is no results.json of this version: {error}. Run the same evals.compare command again: "
                "cells that are done are kept."
            ) from None

    def settings(self) -> list[dict[str, Any]]:
        """The points of the grid in the order of the cells; one empty point without a grid."""
        found: list[dict[str, Any]] = []
        for cell in self.cells:
            if cell.setting not in found:
                found.append(cell.setting)
        return found

    def done(self, algorithm: str, setting: dict[str, Any]) -> list[Cell]:
        """The finished cells of an algorithm at a point of the grid, by seed."""
        cells = [c for c in self.cells if (c.algorithm, c.setting, c.status) == (algorithm, setting, "done")]
        return sorted(cells, key=lambda cell: self.seeds.index(cell.seed))


def _cell(last: dict[str, Any] | None, best: dict[str, Any] | None, **fields: Any) -> Cell:
    return Cell(**fields, last=Evaluation(**last) if last else None, best=Evaluation(**best) if best else None)
