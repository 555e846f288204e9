"""Numbers of one run, and the names of its measures, from its logs and its evaluation.

`validation` names the metric that counts as the validation curve, see `reward_metrics`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import accumulate
from statistics import fmean

from ..shared.estimates import area_under_curve, first_reach, pass_at_k
from ..shared.results import Cell, Evaluation, Results


def mean_name(results: Results) -> str:
    """Name of the final reward, for example `"mean@8"`."""
    samples = {cell.last.samples for cell in results.cells if cell.last}
    return f"mean@{samples.pop()}" if len(samples) == 1 else "mean@k"


def reward_metrics(results: Results) -> tuple[str, str]:
    """Metrics of training and of validation: the reward of the test if it was logged, else the reward trained on.

    The two differ if a run has several rewards, or learns from a majority vote without reference answers. The results
    of earlier versions have the reward of the test in the validations only.
    """
    [name, *_] = results.evaluation.get("reward_funcs") or [""]
    mean = f"rewards/{name.rpartition('.')[2]}/mean"
    named = any(logged(cell, metric) for cell in results.cells for metric in (mean, f"eval_{mean}"))
    return (mean, f"eval_{mean}") if named else ("reward", "eval_reward")


def score(model: Evaluation) -> float:
    """Mean@k of a model: the mean reward of its samples."""
    return fmean(model.scores)


def pass_at_samples(cell: Cell) -> float | None:
    """Pass@k of the final model, with k the smallest number of samples of a question that count."""
    return pass_at_k(cell.last.counts, cell.last.correct, min(cell.last.counts)) if cell.last else None


def logged(cell: Cell, column: str) -> list[float]:
    """The logged values of a metric."""
    return [value for value in cell.series.get(column, []) if value is not None]


def area(cell: Cell, validation: str) -> float | None:
    """Mean validation reward over the optimiser steps. None with fewer than two validations."""
    steps, rewards = _validations(cell, "step", validation)
    return area_under_curve(steps, rewards) if len(steps) > 1 else None


def final_entropy(cell: Cell) -> float | None:
    """Entropy of the last log, in nats per token."""
    entropies = logged(cell, "entropy")
    return entropies[-1] if entropies else None


def reach(cell: Cell, column: str, validation: str, threshold: float | None) -> float | None:
    """Value of a column, such as the step, at the first validation that reached the threshold. None without one."""
    return None if threshold is None else first_reach(*_validations(cell, column, validation), threshold)


def generations(cell: Cell, step: float | None) -> int | None:
    """Number of generations up to an optimiser step."""
    if step is None or cell.updates_per_generation is None:
        return None
    return math.ceil(step / cell.updates_per_generation)


def completion_tokens(cell: Cell, step: float | None) -> float | None:
    """Tokens of the completions generated up to an optimiser step.

    This is the number of completions times their mean length in the logs. Extra votes and resampled groups are not
    counted.
    """
    count, lengths = generations(cell, step), _pairs(cell, "completions/mean_length")
    if count is None or cell.updates_per_generation is None or cell.completions_per_generation is None or not lengths:
        return None
    generated = count * cell.updates_per_generation  # as optimiser steps
    ends = [at for at, _ in lengths[:-1]] + [math.inf]
    parts = zip([0.0, *ends], ends, lengths, strict=False)
    steps_times_length = sum(max(0.0, min(generated, end) - begin) * length for begin, end, (_, length) in parts)
    return steps_times_length / cell.updates_per_generation * cell.completions_per_generation


def _pairs(cell: Cell, column: str) -> list[tuple[float, float]]:
    """Step and value of each log that has the column."""
    pairs = zip(cell.series.get("step", []), cell.series.get(column, []), strict=False)
    return [(step, value) for step, value in pairs if step is not None and value is not None]


def _validations(cell: Cell, column: str, validation: str) -> tuple[list[float], list[float]]:
    """The last value of a column up to each validation (0 if there is none), and the validation rewards."""
    rewards, values = cell.series.get(validation, []), cell.series.get(column, [])
    latest: Iterable[float | None] = accumulate(values, lambda known, value: known if value is None else value)
    points = [(at or 0.0, reward) for at, reward in zip(latest, rewards, strict=False) if reward is not None]
    return [at for at, _ in points], [reward for _, reward in points]
