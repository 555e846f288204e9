"""From the folder of a comparison to its `Results`."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gbpo.run.data import loading as data
from gbpo.run.output import folder
from gbpo.shared.provenance import git_revision

from ..report.results import Cell, Evaluation, Results
from ..shared.hardware import describe
from .cells import Point
from .folder import SERIES, START, TEST, VALIDATION, Comparison
from .runner import ROOT, cell_command, last_lines

SHOWN_LINES = 15  # of what a failed run printed last


def collect(comparison: Comparison) -> Results:
    """Everything that a comparison has found by now."""
    start, settings = _read_evaluations(comparison.folder / START, [0])
    for path in [comparison.home(*cell).evaluation for cell in comparison.cells]:
        settings = settings or _read_evaluations(path, [0])[1]
    if settings:  # by their names, not by where they lie on this machine
        settings |= {"dataset_name": TEST, "reference": comparison.base.model.model_name_or_path}
    counts: dict[str, Any] = {
        f"{name} questions": len((comparison.folder / file).read_text().splitlines())
        for name, file in (("validation", VALIDATION), ("test", TEST))
    }
    return Results(
        command=comparison.command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        git_revision=git_revision(),
        versions=folder.versions(),
        hardware=describe(),
        recipe=str(comparison.recipe),
        recipe_text=comparison.recipe.read_text(),
        overrides=comparison.overrides,
        algorithms=comparison.algorithms,
        grid=comparison.grid,
        seeds=comparison.seeds,
        evaluation=counts | settings,
        questions=_questions(comparison),
        start=start[0] if start else None,
        notes=comparison.notes,
        cells=[_cell(comparison, point, seed) for point, seed in comparison.cells],
    )


def _cell(comparison: Comparison, point: Point, seed: int) -> Cell:
    home = comparison.home(point, seed)
    record = home.record
    rows = folder.read_metrics(home.run)
    columns = {name: [row.get(name) for row in rows] for name in SERIES}
    best = home.best_checkpoint()
    steps = [rows[-1]["step"] if rows else 0, int(best.name.rpartition("-")[2]) if best else 0]
    evaluations = _read_evaluations(home.evaluation, steps)[0] if home.is_done else []
    status = "missing" if record["status"] == "done" and not evaluations else record["status"]
    return Cell(
        algorithm=point.algorithm.name,
        setting=point.setting,
        seed=seed,
        status=status,
        folder=str(point.folder(seed)),
        command=_from_checkout(cell_command(comparison, point, seed)),
        reason=record.get("reason"),
        tail=last_lines(home.log, SHOWN_LINES) if status == "failed" else [],
        seconds=record["seconds"] or None,
        train_seconds=_last(columns["elapsed"]),
        tokens=_last(columns["num_tokens"]),
        peak_memory_gb=_last([row.get("peak_memory_gb") for row in rows]),
        series={name: values for name, values in columns.items() if _last(values) is not None},
        last=evaluations[0] if evaluations else None,
        best=evaluations[1] if len(evaluations) > 1 else None,
    )


def _from_checkout(command: list[str]) -> str:
    """A command as it is typed in the checkout: without the path that leads to it, or to the interpreter."""
    typed = ["python" if word == sys.executable else word.replace(f"{ROOT}/", "") for word in command]
    return shlex.join(typed)


def _read_evaluations(path: Path, steps: list[int]) -> tuple[list[Evaluation], dict[str, Any]]:
    """The evaluations in a file of `evals.evaluate`, each with its step, and their settings."""
    if not path.is_file():
        return [], {}
    found = json.loads(path.read_text())
    evaluations = [
        Evaluation(**entry["evaluation"] | {"step": step}) for entry, step in zip(found, steps, strict=False)
    ]
    return evaluations, found[0]["settings"]


def _questions(comparison: Comparison) -> list[dict[str, str]]:
    run = dataclasses.replace(comparison.base.run, dataset_name=str(comparison.folder / TEST), dataset_kwargs={})
    test, _ = data.load(run, evaluation=False)
    golds = test["solution"] if "solution" in test.column_names else [""] * len(test)
    return [{"prompt": _text(prompt), "gold": str(gold)} for prompt, gold in zip(test["prompt"], golds, strict=True)]


def _text(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(str(message["content"]) for message in prompt)


def _last(values: list[Any]) -> Any:
    return next((value for value in reversed(values) if value is not None), None)
