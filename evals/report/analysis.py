"""Compute the numbers of a report from the runs of a comparison."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from ..shared.estimates import Interval, iqm_interval, mean_interval, pass_at_k, possible_range
from ..shared.results import Cell, Evaluation, Results, label
from .differences import GridDifference, PointDifference, grid_differences, point_differences
from .run_numbers import area, completion_tokens, final_entropy, generations, logged, reach, reward_metrics, score
from .stability import Sign, collapsed, gradient_spikes, max_drawdown, signs
from .verdicts import THRESHOLD_SHARE, threshold_line

_SHARE = (0.0, 1.0)


@dataclass(frozen=True)
class PointSummary:
    """One algorithm at one grid point, summarised over its finished seeds.

    Intervals of shares are cut at 0 and 1, and those of entropies at 0. A reward counts as a share if all of its values
    in the comparison lie between 0 and 1.

    Args:
        setting: The grid point.
        algorithm: Entry of `--algorithms`.
        seeds: Number of finished runs.
        failed: Number of failed runs.
        last: Mean@k of the final models.
        best: Mean@k of the checkpoints with the highest validation reward.
        iqm: Interquartile mean of the final models' scores over seeds and questions.
        pass_at: k → unbiased pass@k of the final models, averaged over questions.
        majority: Majority@k of the final models.
        greedy: Greedy accuracy of the final models.
        area: Area under the validation curve divided by its width, that is the mean validation reward over the steps.
        reached: Number of seeds whose validation reward reached the threshold.
        steps_to_threshold: Optimiser steps to the threshold; median over seeds. None unless at least half of the
            seeds reached the threshold.
        generations_to_threshold: Generations up to the threshold; median over seeds.
        completion_tokens_to_threshold: Tokens of the completions generated up to the threshold; median over seeds.
        tokens_to_threshold: Tokens processed up to the threshold; median over seeds.
        seconds_to_threshold: Seconds of training up to the threshold; median over seeds.
        train_seconds: Seconds of training; median over seeds.
        peak_memory_gb: Peak memory; median over seeds.
        collapsed: Number of finished seeds that collapsed, as defined in `evals.report.stability`.
        first_signs: Sign → number of collapsed seeds in which it appeared first.
        max_drawdown: Largest fall of the smoothed training reward (`reward_metrics`) from its peak; mean over seeds.
        first_entropy: Entropy of the first log in nats per token; mean over seeds.
        entropy: Entropy of the last log in nats per token.
        gradient_spikes: Number of logs with a spike of the gradient norm; mean over seeds.
        ratio: Lowest 1st and highest 99th percentile of the token ratios during the run; means over seeds.
        outside_bounds: Fraction of tokens whose ratio lies outside the bounds; mean over the run and over seeds.
        kl_to_start: KL divergence of the final model from the starting model in nats per completion; mean over seeds.
    """

    setting: dict[str, Any]
    algorithm: str
    seeds: int
    failed: int
    last: Interval | None
    best: Interval | None
    iqm: Interval | None
    pass_at: dict[int, Interval]
    majority: Interval | None
    greedy: Interval | None
    area: Interval | None
    reached: int
    steps_to_threshold: float | None
    generations_to_threshold: float | None
    completion_tokens_to_threshold: float | None
    tokens_to_threshold: float | None
    seconds_to_threshold: float | None
    train_seconds: float | None
    peak_memory_gb: float | None
    collapsed: int
    first_signs: dict[str, int]
    max_drawdown: float | None
    first_entropy: float | None
    entropy: Interval | None
    gradient_spikes: float | None
    ratio: tuple[float, float] | None
    outside_bounds: float | None
    kl_to_start: float | None


@dataclass(frozen=True)
class Analysis:
    """All the numbers of a report.

    Args:
        baseline: The first algorithm.
        thresholds: One line per grid point that states the threshold.
        summaries: By grid point, then by algorithm.
        differences: By grid point, then by algorithm, without the baseline.
        overall: By algorithm, without the baseline. Empty if the grid has a single point.
        signs: Cell folder → signs of trouble in order of appearance, for all runs that had any.
    """

    baseline: str
    thresholds: list[str]
    summaries: list[PointSummary]
    differences: list[PointDifference]
    overall: list[GridDifference]
    signs: dict[str, list[Sign]]


def analyse(results: Results) -> Analysis:
    """Compute the numbers of a report.

    The threshold of a grid point is `THRESHOLD_SHARE` of the way from the first validation reward, averaged over all
    runs, to the highest final validation reward of an algorithm, averaged over its seeds.
    """
    training, validation = reward_metrics(results)
    found = {cell.folder: signs(cell.series, training, validation) for cell in results.cells}
    models = [model for cell in results.cells for model in (cell.last, cell.best) if model]
    of_reward = possible_range(value for model in models for value in model.scores)
    of_validation = possible_range(value for cell in results.cells for value in logged(cell, validation))
    thresholds, summaries = [], []
    for setting in results.settings():
        threshold = _threshold(results, setting, validation)
        thresholds.append(threshold_line(label(setting), threshold))
        for algorithm in results.algorithms:
            cells = [c for c in results.cells if (c.algorithm, c.setting) == (algorithm, setting)]
            failed = sum(cell.status == "failed" for cell in cells)
            done = results.done(algorithm, setting)
            how = training, validation, threshold, of_reward, of_validation
            summaries.append(_point_summary(setting, algorithm, done, failed, found, *how))
    reward_range, validation_range = (high - low for low, high in (of_reward, of_validation))
    return Analysis(
        baseline=results.algorithms[0],
        thresholds=thresholds,
        summaries=summaries,
        differences=point_differences(results, validation, reward_range, validation_range),
        overall=grid_differences(results, validation, reward_range),
        signs={folder: came for folder, came in found.items() if came},
    )


_Limits = tuple[float, float]  # lowest and highest possible value of a quantity


def _threshold(results: Results, setting: dict[str, Any], validation: str) -> float | None:
    """The threshold at a grid point, or None if no algorithm ended above the first validation."""
    curves = {
        algorithm: [curve for cell in results.done(algorithm, setting) if (curve := logged(cell, validation))]
        for algorithm in results.algorithms
    }
    if not any(curves.values()):
        return None
    first = fmean(curve[0] for of_algorithm in curves.values() for curve in of_algorithm)
    highest = max(fmean(curve[-1] for curve in of_algorithm) for of_algorithm in curves.values() if of_algorithm)
    return first + THRESHOLD_SHARE * (highest - first) if highest > first else None


def _point_summary(
    setting: dict[str, Any],
    algorithm: str,
    cells: Sequence[Cell],
    failed: int,
    found: Mapping[str, Sequence[Sign]],
    training: str,
    validation: str,
    threshold: float | None,
    of_reward: _Limits,
    of_validation: _Limits,
) -> PointSummary:
    last = [cell.last for cell in cells if cell.last]
    collapses = [came for cell in cells if collapsed(came := found[cell.folder])]
    steps = [reach(cell, "step", validation, threshold) for cell in cells]
    return PointSummary(
        setting=setting,
        algorithm=algorithm,
        seeds=len(cells),
        failed=failed,
        last=_interval((score(model) for model in last), of_reward),
        best=_interval((score(cell.best) for cell in cells if cell.best), of_reward),
        iqm=iqm_interval([model.scores for model in last]).within(*of_reward) if last else None,
        pass_at=_pass_at(last),
        majority=_interval((fmean(model.majority) for model in last if model.majority is not None), of_reward),
        greedy=_interval((fmean(model.greedy) for model in last), of_reward),
        area=_interval((mean for cell in cells if (mean := area(cell, validation)) is not None), of_validation),
        reached=sum(step is not None for step in steps),
        steps_to_threshold=_median_reach(steps),
        generations_to_threshold=_median_reach(map(generations, cells, steps)),
        completion_tokens_to_threshold=_median_reach(map(completion_tokens, cells, steps)),
        tokens_to_threshold=_median_reach(reach(cell, "num_tokens", validation, threshold) for cell in cells),
        seconds_to_threshold=_median_reach(reach(cell, "elapsed", validation, threshold) for cell in cells),
        train_seconds=_median(cell.train_seconds for cell in cells),
        peak_memory_gb=_median(cell.peak_memory_gb for cell in cells),
        collapsed=len(collapses),
        first_signs=dict(Counter(came[0].kind for came in collapses)),
        max_drawdown=_mean(max_drawdown(cell.series.get(training, [])) for cell in cells),
        first_entropy=_mean(values[0] for cell in cells if (values := logged(cell, "entropy"))),
        entropy=_interval((end for cell in cells if (end := final_entropy(cell)) is not None), (0, math.inf)),
        gradient_spikes=_mean(
            len(gradient_spikes(cell.series["grad_norm"])) for cell in cells if "grad_norm" in cell.series
        ),
        ratio=_mean_pair(
            (min(low), max(high))
            for cell in cells
            if (low := logged(cell, "gbpo/ratio_p01")) and (high := logged(cell, "gbpo/ratio_p99"))
        ),
        outside_bounds=_mean(fmean(shares) for cell in cells if (shares := logged(cell, "gbpo/outside_bounds"))),
        kl_to_start=_mean(model.kl_to_start for model in last),
    )


def _median_reach(reached: Iterable[float | None]) -> float | None:
    middle = median([math.inf if at is None else at for at in reached] or [math.inf])
    return middle if math.isfinite(middle) else None


def _pass_at(models: Sequence[Evaluation]) -> dict[int, Interval]:
    samples = min((min(model.counts) for model in models), default=0)
    powers = [2**i for i in range(samples.bit_length())]
    return {
        k: mean_interval([pass_at_k(model.counts, model.correct, k) for model in models]).within(*_SHARE)
        for k in sorted({*powers, samples} - {0})
    }


def _interval(values: Iterable[float], limits: _Limits) -> Interval | None:
    values = list(values)
    return mean_interval(values).within(*limits) if values else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _mean_pair(pairs: Iterable[tuple[float, float]]) -> tuple[float, float] | None:
    pairs = list(pairs)
    return (fmean(first for first, _ in pairs), fmean(second for _, second in pairs)) if pairs else None
