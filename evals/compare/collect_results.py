"""Read the results of a comparison from its folder."""

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
from gbpo.shared.hardware import describe_hardware
from gbpo.shared.packages import import_root
from gbpo.shared.provenance import git_revision

from ..shared.results import Cell, Evaluation, Results
from .cell_command import cell_command
from .plan import START, TEST, VALIDATION, ComparisonPlan
from .point import Point
from .process_log import last_lines

_TAIL_LINES = 15  # lines of output kept for a failed run

# Metrics of a run that the report and the studies use. The means of the single rewards are kept too.
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
    "rewards/majority_vote/label_accuracy",
)


def collect_results(plan: ComparisonPlan) -> Results:
    """Read all results that the comparison has so far."""
    start, settings = _read_evaluations(plan.folder / START, [0])
    for path in [plan.cell_folder(*cell).evaluation for cell in plan.cells]:
        settings = settings or _read_evaluations(path, [0])[1]
    if settings:  # names instead of paths on this machine
        settings |= {"dataset_name": TEST, "reference": plan.base.model.model_name_or_path}
    counts: dict[str, Any] = {
        f"{name} questions": len((plan.folder / file).read_text().splitlines())
        for name, file in (("validation", VALIDATION), ("test", TEST))
    }
    cells = [_cell(plan, point, seed) for point, seed in plan.cells]
    return Results(
        command=plan.command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        git_revision=git_revision(),
        versions=folder.versions(),
        hardware=describe_hardware(),
        recipe=str(plan.recipe),
        recipe_text=plan.recipe.read_text(),
        overrides=plan.overrides,
        algorithms=plan.algorithms,
        grid=plan.grid,
        seeds=plan.seeds,
        evaluation=counts | settings,
        questions=_questions(plan),
        start=start[0] if start else None,
        notes=[*plan.notes, *_ungraded_notes(cells)],
        cells=cells,
    )


def _cell(plan: ComparisonPlan, point: Point, seed: int) -> Cell:
    files = plan.cell_folder(point, seed)
    record = files.record
    rows = folder.read_metrics(files.run)
    rewards = sorted({name for row in rows for name in row if _is_single_reward(name)})
    columns = {name: [row.get(name) for row in rows] for name in (*SERIES, *rewards)}
    best = files.best_checkpoint()
    steps = [rows[-1]["step"] if rows else 0, int(best.name.rpartition("-")[2]) if best else 0]
    evaluations = _read_evaluations(files.evaluation, steps)[0] if files.is_done else []
    status = "missing" if record["status"] == "done" and not evaluations else record["status"]
    training = _training_options(files.run)
    return Cell(
        algorithm=point.algorithm.name,
        setting=point.setting,
        seed=seed,
        status=status,
        folder=str(point.folder(seed)),
        command=_from_checkout(cell_command(plan, point, seed)),
        reason=record.get("reason"),
        tail=last_lines(files.log, _TAIL_LINES) if status == "failed" else [],
        seconds=record["seconds"] or None,
        train_seconds=_last(columns["elapsed"]),
        tokens=_last(columns["num_tokens"]),
        peak_memory_gb=_last([row.get("peak_memory_gb") for row in rows]),
        updates_per_generation=_updates_per_generation(training),
        completions_per_generation=training.get("generation_batch_size"),
        series={name: values for name, values in columns.items() if _last(values) is not None},
        last=evaluations[0] if evaluations else None,
        best=evaluations[1] if len(evaluations) > 1 else None,
    )


def _ungraded_notes(cells: list[Cell]) -> list[str]:
    """A line for each run in whose test the reward left completions ungraded."""
    tested = {cell.folder: [model for model in (cell.last, cell.best) if model] for cell in cells}
    return [
        f"The reward left {sum(model.ungraded for model in models)} of {sum(model.completed for model in models)} "
        f"completions of the test in {where} ungraded. They count as 0. To test again, delete {where}/evaluation.json "
        "and repeat the command."
        for where, models in tested.items()
        if any(model.ungraded for model in models)
    ]


def _training_options(run: Path) -> dict[str, Any]:
    """The training options that a run has written to its folder. Empty if the run has not begun."""
    path = run / folder.CONFIG
    return json.loads(path.read_text())["training"] if path.is_file() else {}


def _updates_per_generation(training: dict[str, Any]) -> float | None:
    if not training:
        return None
    return training["steps_per_generation"] * training["num_iterations"] / training["gradient_accumulation_steps"]


def _is_single_reward(metric: str) -> bool:
    """Whether a metric is the mean of one reward function, in training or in the validation."""
    return metric.startswith(("rewards/", "eval_rewards/")) and metric.endswith("/mean")


def _from_checkout(command: list[str]) -> str:
    """The command as a user types it in a checkout: the paths of the checkout and of the interpreter are removed."""
    typed = ["python" if word == sys.executable else word.replace(f"{import_root()}/", "") for word in command]
    return shlex.join(typed)


def _read_evaluations(path: Path, steps: list[int]) -> tuple[list[Evaluation], dict[str, Any]]:
    """The evaluations in an output file of `evals.evaluate`, and their settings. `steps` are written into them."""
    if not path.is_file():
        return [], {}
    found = json.loads(path.read_text())
    evaluations = [
        Evaluation(**entry["evaluation"] | {"step": step}) for entry, step in zip(found, steps, strict=False)
    ]
    return evaluations, found[0]["settings"]


def _questions(plan: ComparisonPlan) -> list[dict[str, str]]:
    run = dataclasses.replace(plan.base.run, dataset_name=str(plan.folder / TEST), dataset_kwargs={})
    test, _ = data.load(run, evaluation=False)
    references = test["solution"] if "solution" in test.column_names else [""] * len(test)
    return [{"prompt": _text(row), "gold": str(reference)} for row, reference in zip(test, references, strict=True)]


def _text(row: dict[str, Any]) -> str:
    """The prompt of a row. If its environment writes the prompt, the columns that choose the prompt."""
    prompt = row.pop("prompt")
    text = prompt if isinstance(prompt, str) else "\n".join(_content(message["content"]) for message in prompt)
    return text or ", ".join(f"{name}={value}" for name, value in row.items())


def _content(content: Any) -> str:
    """The text of a message. `[image]` stands for an image."""
    if isinstance(content, list):
        return " ".join("[image]" if part["type"] == "image" else part["text"] for part in content)
    return str(content)


def _last(values: list[Any]) -> Any:
    return next((value for value in reversed(values) if value is not None), None)
