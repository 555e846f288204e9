"""Compute the numbers of a report from the runs of a comparison."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean, median
from typing import Any

from ..shared.estimates import (
    Interval,
    area_under_curve,
    first_reach,
    iqm_difference,
    iqm_interval,
    mean_interval,
    paired_difference,
    pass_at_k,
    probability_of_improvement,
)
from ..shared.results import Cell, Evaluation, Results, label
from .stability import Sign, collapsed, gradient_spikes, max_drawdown, signs
from .verdicts import threshold_line, verdict


@dataclass(frozen=True)
class PointSummary:
    """One algorithm at one grid point, summarised over its finished seeds.

    Args:
        setting: The grid point.
        algorithm: Entry of `--algorithms`.
        seeds: Number of finished runs.
        failed: Number of failed runs.
        last: Mean@k of the final models.
        best: Mean@k of the checkpoints with the highest validation reward.
        iqm: Interquartile mean of the final models' scores over seeds and questions.
        pass_at: k → unbiased pass@k of the final models, averaged over seeds and questions.
        majority: Majority@k of the final models.
        greedy: Greedy accuracy of the final models.
        area: Area under the validation curve divided by its width, that is the mean validation reward over the steps.
        reached: Number of seeds whose validation reward reached the threshold.
        steps_to_threshold: Optimiser steps to the threshold; median over seeds. None unless at least half of the
            seeds reached the threshold.
        tokens_to_threshold: Tokens processed up to the threshold; median over seeds.
        seconds_to_threshold: Seconds of training up to the threshold; median over seeds.
        train_seconds: Seconds of training; median over seeds.
        peak_memory_gb: Peak memory; median over seeds.
        collapsed: Number of finished seeds that collapsed, as defined in `evals.report.stability`.
        first_signs: Sign → number of collapsed seeds in which it appeared first.
        max_drawdown: Largest fall of the smoothed training reward from its peak so far; mean over seeds.
        entropy: Entropy of the first and of the last log in nats per token; means over seeds.
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
    pass_at: dict[int, float]
    majority: Interval | None
    greedy: Interval | None
    area: Interval | None
    reached: int
    steps_to_threshold: float | None
    tokens_to_threshold: float | None
    seconds_to_threshold: float | None
    train_seconds: float | None
    peak_memory_gb: float | None
    collapsed: int
    first_signs: dict[str, int]
    max_drawdown: float | None
    entropy: tuple[float, float] | None
    gradient_spikes: float | None
    ratio: tuple[float, float] | None
    outside_bounds: float | None
    kl_to_start: float | None


@dataclass(frozen=True)
class PointDifference:
    """Difference of one algorithm to the baseline at one grid point, over the seeds that both finished.

    The intervals are not corrected for multiple comparisons: without any true difference, one in
    twenty intervals excludes 0.

    Args:
        setting: The grid point.
        algorithm: The algorithm. The baseline is the first of `Results.algorithms`.
        last: Difference of mean@k of the final models, paired by seed.
        best: Difference of mean@k of the best checkpoints, paired by seed. None if no seed has a best
            checkpoint of both.
        iqm: Difference of the interquartile means.
        area: Difference of the areas under the validation curves, paired by seed.
        improvement: Probability that a run of the algorithm beats a run of the baseline. Ties count half.
        verdict: One sentence that says which is better.
    """

    setting: dict[str, Any]
    algorithm: str
    last: Interval
    best: Interval | None
    iqm: Interval
    area: Interval | None
    improvement: Interval
    verdict: str


@dataclass(frozen=True)
class GridDifference:
    """Difference of one algorithm to the baseline over a grid of several points.

    Args:
        algorithm: The algorithm.
        grid: Difference of mean@k of the final models, averaged over the grid and paired by seed. Only seeds that
            both algorithms finished at every grid point are used; None if there are no such seeds.
        setting: Best grid point of the algorithm: highest final validation reward, averaged over seeds.
        baseline_setting: Best grid point of the baseline.
        tuned: Difference of mean@k of the final models, each at its best grid point, paired by seed.
        verdicts: One sentence for each of the two differences.
    """

    algorithm: str
    grid: Interval | None
    setting: dict[str, Any]
    baseline_setting: dict[str, Any]
    tuned: Interval | None
    verdicts: list[str]


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

    The threshold of a grid point is the final validation reward of the baseline at this grid point, averaged over
    seeds.
    """
    baseline, *others = results.algorithms
    found = {cell.folder: signs(cell.series) for cell in results.cells}
    thresholds, summaries, differences = [], [], []
    for setting in results.settings():
        baseline_cells = results.done(baseline, setting)
        finals = [curve[-1] for cell in baseline_cells if (curve := _logged(cell, "eval_reward"))]
        threshold = fmean(finals) if finals else None
        thresholds.append(threshold_line(label(setting), baseline, threshold, len(finals)))
        for algorithm in results.algorithms:
            cells = [c for c in results.cells if (c.algorithm, c.setting) == (algorithm, setting)]
            failed = sum(cell.status == "failed" for cell in cells)
            done = results.done(algorithm, setting)
            summaries.append(_point_summary(setting, algorithm, done, failed, threshold, found))
        for algorithm in others:
            pairs = _pairs(results.done(algorithm, setting), baseline_cells)
            if pairs:
                differences.append(_point_difference(setting, algorithm, baseline, pairs))
    overall = [_grid_difference(results, other, baseline) for other in others] if len(results.settings()) > 1 else []
    troubled = {folder: came for folder, came in found.items() if came}
    return Analysis(baseline, thresholds, summaries, differences, [one for one in overall if one], troubled)


def _point_summary(
    setting: dict[str, Any],
    algorithm: str,
    cells: Sequence[Cell],
    failed: int,
    threshold: float | None,
    found: Mapping[str, Sequence[Sign]],
) -> PointSummary:
    last = [cell.last for cell in cells if cell.last]
    collapses = [came for cell in cells if collapsed(came := found[cell.folder])]
    steps = [_reach(cell, "step", threshold) for cell in cells]
    return PointSummary(
        setting=setting,
        algorithm=algorithm,
        seeds=len(cells),
        failed=failed,
        last=_interval(fmean(model.scores) for model in last),
        best=_interval(fmean(cell.best.scores) for cell in cells if cell.best),
        iqm=iqm_interval([model.scores for model in last]) if last else None,
        pass_at=_pass_at(last),
        majority=_interval(fmean(model.majority) for model in last if model.majority is not None),
        greedy=_interval(fmean(model.greedy) for model in last),
        area=_interval(area for cell in cells if (area := _area(cell)) is not None),
        reached=sum(step is not None for step in steps),
        steps_to_threshold=_median_reach(steps),
        tokens_to_threshold=_median_reach([_reach(cell, "num_tokens", threshold) for cell in cells]),
        seconds_to_threshold=_median_reach([_reach(cell, "elapsed", threshold) for cell in cells]),
        train_seconds=_median(cell.train_seconds for cell in cells),
        peak_memory_gb=_median(cell.peak_memory_gb for cell in cells),
        collapsed=len(collapses),
        first_signs=dict(Counter(came[0].kind for came in collapses)),
        max_drawdown=_mean(max_drawdown(cell.series.get("reward", [])) for cell in cells),
        entropy=_mean_pair((values[0], values[-1]) for cell in cells if (values := _logged(cell, "entropy"))),
        gradient_spikes=_mean(
            len(gradient_spikes(cell.series["grad_norm"])) for cell in cells if "grad_norm" in cell.series
        ),
        ratio=_mean_pair(
            (min(low), max(high))
            for cell in cells
            if (low := _logged(cell, "gbpo/ratio_p01")) and (high := _logged(cell, "gbpo/ratio_p99"))
        ),
        outside_bounds=_mean(fmean(shares) for cell in cells if (shares := _logged(cell, "gbpo/outside_bounds"))),
        kl_to_start=_mean(model.kl_to_start for model in last),
    )


def _pairs(cells: Sequence[Cell], baseline: Sequence[Cell]) -> list[tuple[Cell, Cell]]:
    """Pairs of runs with the same seed whose final models were both evaluated."""
    by_seed = {cell.seed: cell for cell in baseline if cell.last}
    return [(cell, by_seed[cell.seed]) for cell in cells if cell.last and cell.seed in by_seed]


def _point_difference(
    setting: dict[str, Any], algorithm: str, baseline: str, pairs: Sequence[tuple[Cell, Cell]]
) -> PointDifference:
    last = [(x.last, y.last) for x, y in pairs if x.last and y.last]
    finals = [(fmean(x.scores), fmean(y.scores)) for x, y in last]
    ours, theirs = zip(*finals, strict=True)
    difference = paired_difference(ours, theirs)
    return PointDifference(
        setting=setting,
        algorithm=algorithm,
        last=difference,
        best=_difference((fmean(x.best.scores), fmean(y.best.scores)) for x, y in pairs if x.best and y.best),
        iqm=iqm_difference([x.scores for x, _ in last], [y.scores for _, y in last]),
        area=_difference((a, b) for x, y in pairs if (a := _area(x)) is not None and (b := _area(y)) is not None),
        improvement=probability_of_improvement(ours, theirs),
        verdict=verdict(algorithm, baseline, finals, difference),
    )


def _grid_difference(results: Results, algorithm: str, baseline: str) -> GridDifference | None:
    ours, theirs = _finals(results, algorithm), _finals(results, baseline)
    best, best_theirs = _best_point(results, algorithm), _best_point(results, baseline)
    if best is None or best_theirs is None:
        return None
    verdicts = []
    complete = [seed for seed in results.seeds if all(seed in at for at in [*ours, *theirs])]
    pairs = [(fmean(at[seed] for at in ours), fmean(at[seed] for at in theirs)) for seed in complete]
    grid = _difference(pairs)
    if grid:
        verdicts.append(f"Over the whole grid, {_inside(verdict(algorithm, baseline, pairs, grid))}.")
    settings = results.settings()
    at_best, baseline_at_best = ours[settings.index(best)], theirs[settings.index(best_theirs)]
    pairs = [(at_best[seed], baseline_at_best[seed]) for seed in at_best if seed in baseline_at_best]
    tuned = _difference(pairs)
    if tuned:
        where = f"{algorithm} at {label(best)}, {baseline} at {label(best_theirs)}"
        sentence = _inside(verdict(algorithm, baseline, pairs, tuned))
        verdicts.append(f"Each at its best grid point by validation reward ({where}), {sentence}.")
    return GridDifference(algorithm, grid, best, best_theirs, tuned, verdicts)


def _inside(sentence: str) -> str:
    """The sentence with a small first letter, to continue another sentence."""
    return sentence[0].lower() + sentence[1:]


def _finals(results: Results, algorithm: str) -> list[dict[int, float]]:
    """At each grid point: seed → mean@k of the final model."""
    return [
        {cell.seed: fmean(cell.last.scores) for cell in results.done(algorithm, setting) if cell.last}
        for setting in results.settings()
    ]


def _best_point(results: Results, algorithm: str) -> dict[str, Any] | None:
    """Grid point with the highest final validation reward, averaged over seeds. Ties go to the first."""
    rewards = {}
    for place, setting in enumerate(results.settings()):
        curves = [_logged(cell, "eval_reward") for cell in results.done(algorithm, setting)]
        if any(curves):
            rewards[place] = fmean(curve[-1] for curve in curves if curve)
    return results.settings()[max(rewards, key=lambda place: rewards[place])] if rewards else None


def _logged(cell: Cell, column: str) -> list[float]:
    return [value for value in cell.series.get(column, []) if value is not None]


def _validation(cell: Cell, column: str) -> tuple[list[float], list[float]]:
    """The last value of a column up to each validation (0 if there is none), and the validation rewards."""
    rewards, values = cell.series.get("eval_reward", []), cell.series.get(column, [])
    latest: Iterable[float | None] = accumulate(values, lambda known, value: known if value is None else value)
    points = [(at or 0.0, reward) for at, reward in zip(latest, rewards, strict=False) if reward is not None]
    return [at for at, _ in points], [reward for _, reward in points]


def _area(cell: Cell) -> float | None:
    steps, rewards = _validation(cell, "step")
    return area_under_curve(steps, rewards) if len(steps) > 1 else None


def _reach(cell: Cell, column: str, threshold: float | None) -> float | None:
    return None if threshold is None else first_reach(*_validation(cell, column), threshold)


def _median_reach(reached: Sequence[float | None]) -> float | None:
    middle = median(math.inf if at is None else at for at in reached) if reached else math.inf
    return middle if math.isfinite(middle) else None


def _pass_at(models: Sequence[Evaluation]) -> dict[int, float]:
    samples = min((min(model.counts) for model in models), default=0)
    powers = [2**i for i in range(samples.bit_length())]
    return {
        k: fmean(pass_at_k(model.counts, model.correct, k) for model in models)
        for k in sorted({*powers, samples} - {0})
    }


def _interval(values: Iterable[float]) -> Interval | None:
    values = list(values)
    return mean_interval(values) if values else None


def _difference(pairs: Iterable[tuple[float, float]]) -> Interval | None:
    pairs = list(pairs)
    return paired_difference(*zip(*pairs, strict=True)) if pairs else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _mean_pair(pairs: Iterable[tuple[float, float]]) -> tuple[float, float] | None:
    pairs = list(pairs)
    return (fmean(first for first, _ in pairs), fmean(second for _, second in pairs)) if pairs else None
