"""From the cells of a comparison to the numbers of its report."""

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
from .results import Cell, Evaluation, Results, label
from .stability import Sign, collapsed, gradient_spikes, max_drawdown, signs


@dataclass(frozen=True)
class Row:
    """One algorithm at one point of the grid, over its finished seeds.

    Args:
        setting: The point of the grid.
        algorithm: As given to `--algorithms`.
        seeds: Finished cells.
        failed: Cells that failed.
        last: Mean@k of the final model, mean over seeds with its t interval.
        best: The same of the checkpoint of highest validation reward.
        iqm: Interquartile mean of the final model's question scores over seeds and questions, bootstrapped over both.
        pass_at: k → unbiased pass@k of the final model, mean over seeds and questions.
        majority: Majority@k of the final model.
        greedy: Greedy accuracy of the final model.
        area: Area under the validation curve over steps, divided by its width: the mean height.
        reached: Seeds whose validation reward reached the threshold.
        steps_to_threshold: Median over seeds of the optimiser steps to it; None where half did not reach it.
        tokens_to_threshold: The same in tokens generated and read.
        seconds_to_threshold: The same in seconds of training.
        train_seconds: Median over seeds.
        peak_memory_gb: Median over seeds.
        collapsed: Finished seeds that collapsed, as `evals.report.stability` defines it.
        first_signs: Sign → collapsed seeds in which it came first.
        max_drawdown: Largest fall of the smoothed training reward from its peak so far; mean over seeds.
        entropy: Entropy of the first and the last log, nats per token; means over seeds.
        gradient_spikes: Logs whose gradient norm exceeded `SPIKE` times the running median; mean over seeds.
        ratio: 1st and 99th percentile of the token ratios, the extremes over the run; means over seeds.
        outside_bounds: Share of the tokens whose ratio lies outside the bounds, mean over the run and the seeds.
        kl_to_start: Of the final model, nats per completion; mean over seeds.
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
class Comparison:
    """One algorithm held against the baseline at one point of the grid, over the seeds that both finished.

    Each interval stands for itself: of twenty comparisons without a difference, one is expected to show one.

    Args:
        setting: The point of the grid.
        algorithm: The one that is held against the baseline, which is the first of `Results.algorithms`.
        last: Difference of mean@k of the final models, paired by seed.
        best: The same of the best checkpoints; None where no seed has both.
        iqm: Difference of the interquartile means, bootstrapped over seeds and questions.
        area: Difference of the areas under the validation curves, paired by seed.
        improvement: Probability that a run of the algorithm beats a run of the baseline, ties counted half.
        verdict: One sentence: which is better, by how much and how sure; that all seeds came out equal; or that they
            do not tell.
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
class Overall:
    """One algorithm held against the baseline over a grid of several points.

    Args:
        algorithm: The one that is held against the baseline.
        grid: Difference of mean@k of the final models, mean over the points of the grid, paired by seed; of the seeds
            that both finished at every point, and None where there is none.
        setting: The algorithm's own best point: of highest final validation reward, mean over seeds.
        baseline_setting: The baseline's own.
        tuned: Difference of mean@k of the final models, each at its best point, paired by seed.
        verdicts: A sentence for each of the two differences.
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
        thresholds: A line for each point of the grid: the validation reward called the threshold there, and why.
        rows: By point of the grid, then by algorithm.
        comparisons: By point of the grid, then by algorithm, without the baseline itself.
        overall: By algorithm, without the baseline; empty where the grid has one point.
        signs: Cell folder → the signs of trouble in the order they came, of every run that logged any.
    """

    baseline: str
    thresholds: list[str]
    rows: list[Row]
    comparisons: list[Comparison]
    overall: list[Overall]
    signs: dict[str, list[Sign]]


def analyse(results: Results) -> Analysis:
    """The numbers of a comparison's report, from its cells alone.

    The threshold at a point of the grid is the final validation reward of the baseline there, mean over its seeds.
    """
    baseline, *others = results.algorithms
    found = {cell.folder: signs(cell.series) for cell in results.cells}
    thresholds, rows, comparisons = [], [], []
    for setting in results.settings():
        held = results.done(baseline, setting)
        finals = [curve[-1] for cell in held if (curve := _logged(cell, "eval_reward"))]
        threshold = fmean(finals) if finals else None
        thresholds.append(_threshold_line(setting, baseline, threshold, len(finals)))
        for algorithm in results.algorithms:
            cells = [c for c in results.cells if (c.algorithm, c.setting) == (algorithm, setting)]
            failed = sum(cell.status == "failed" for cell in cells)
            rows.append(_row(setting, algorithm, results.done(algorithm, setting), failed, threshold, found))
        for algorithm in others:
            pairs = _pairs(results.done(algorithm, setting), held)
            if pairs:
                comparisons.append(_comparison(setting, algorithm, baseline, pairs))
    overall = [_overall(results, other, baseline) for other in others] if len(results.settings()) > 1 else []
    troubled = {folder: came for folder, came in found.items() if came}
    return Analysis(baseline, thresholds, rows, comparisons, [one for one in overall if one], troubled)


def _row(
    setting: dict[str, Any],
    algorithm: str,
    cells: Sequence[Cell],
    failed: int,
    threshold: float | None,
    found: Mapping[str, Sequence[Sign]],
) -> Row:
    last = [cell.last for cell in cells if cell.last]
    collapses = [came for cell in cells if collapsed(came := found[cell.folder])]
    steps = [_reach(cell, "step", threshold) for cell in cells]
    return Row(
        setting=setting,
        algorithm=algorithm,
        seeds=len(cells),
        failed=failed,
        last=_interval(fmean(model.scores) for model in last),
        best=_interval(fmean(cell.best.scores) for cell in cells if cell.best),
        iqm=iqm_interval([model.scores for model in last]) if last else None,
        pass_at=_pass_at(last),
        majority=_interval(fmean(model.majority) for model in last),
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
    """Runs of both algorithms with the same seed whose final models were evaluated."""
    by_seed = {cell.seed: cell for cell in baseline if cell.last}
    return [(cell, by_seed[cell.seed]) for cell in cells if cell.last and cell.seed in by_seed]


def _comparison(
    setting: dict[str, Any], algorithm: str, baseline: str, pairs: Sequence[tuple[Cell, Cell]]
) -> Comparison:
    last = [(x.last, y.last) for x, y in pairs if x.last and y.last]
    finals = [(fmean(x.scores), fmean(y.scores)) for x, y in last]
    ours, theirs = zip(*finals, strict=True)
    difference = paired_difference(ours, theirs)
    return Comparison(
        setting=setting,
        algorithm=algorithm,
        last=difference,
        best=_difference((fmean(x.best.scores), fmean(y.best.scores)) for x, y in pairs if x.best and y.best),
        iqm=iqm_difference([x.scores for x, _ in last], [y.scores for _, y in last]),
        area=_difference((a, b) for x, y in pairs if (a := _area(x)) is not None and (b := _area(y)) is not None),
        improvement=probability_of_improvement(ours, theirs),
        verdict=_verdict(algorithm, baseline, finals, difference),
    )


def _overall(results: Results, algorithm: str, baseline: str) -> Overall | None:
    ours, theirs = _finals(results, algorithm), _finals(results, baseline)
    best, best_theirs = _best_point(results, algorithm), _best_point(results, baseline)
    if best is None or best_theirs is None:
        return None
    verdicts = []
    whole = [seed for seed in results.seeds if all(seed in at for at in [*ours, *theirs])]
    pairs = [(fmean(at[seed] for at in ours), fmean(at[seed] for at in theirs)) for seed in whole]
    grid = _difference(pairs)
    if grid:
        verdicts.append(f"Over the whole grid, {_verdict(algorithm, baseline, pairs, grid)}.")
    settings = results.settings()
    mine, held = ours[settings.index(best)], theirs[settings.index(best_theirs)]
    pairs = [(mine[seed], held[seed]) for seed in mine if seed in held]
    tuned = _difference(pairs)
    if tuned:
        where = f"{algorithm} at {label(best)}, {baseline} at {label(best_theirs)}"
        said = _verdict(algorithm, baseline, pairs, tuned)
        verdicts.append(f"Each at its own best point by validation ({where}), {said}.")
    return Overall(algorithm, grid, best, best_theirs, tuned, verdicts)


def _finals(results: Results, algorithm: str) -> list[dict[int, float]]:
    """Seed → mean@k of the final model, at each point of the grid."""
    return [
        {cell.seed: fmean(cell.last.scores) for cell in results.done(algorithm, setting) if cell.last}
        for setting in results.settings()
    ]


def _best_point(results: Results, algorithm: str) -> dict[str, Any] | None:
    """The point of highest final validation reward, mean over seeds, the first of equals."""
    rewards = {}
    for place, setting in enumerate(results.settings()):
        curves = [_logged(cell, "eval_reward") for cell in results.done(algorithm, setting)]
        if any(curves):
            rewards[place] = fmean(curve[-1] for curve in curves if curve)
    return results.settings()[max(rewards, key=lambda place: rewards[place])] if rewards else None


def _verdict(algorithm: str, baseline: str, finals: Sequence[tuple[float, float]], difference: Interval) -> str:
    by, low, high, n = difference.estimate, difference.low, difference.high, difference.n
    if low is None or high is None:
        [(ours, theirs)] = finals
        return f"one seed: {algorithm} {ours:.2f}, {baseline} {theirs:.2f}; no interval can be claimed"
    if low == high == 0:
        return f"{algorithm} and {baseline} come out equal on each of {n} seeds"
    if low > 0:
        return f"{algorithm} beats {baseline} by {by:z.3f} ({low:z.3f} to {high:z.3f}, {n} seeds)"
    if high < 0:
        return f"{baseline} beats {algorithm} by {-by:z.3f} ({-high:z.3f} to {-low:z.3f}, {n} seeds)"
    return f"{n} seeds do not tell {algorithm} from {baseline}: {by:z.3f} ({low:z.3f} to {high:z.3f})"


def _threshold_line(setting: dict[str, Any], baseline: str, threshold: float | None, seeds: int) -> str:
    prefix = f"{label(setting)}: " if setting else ""
    if threshold is None:
        return f"{prefix}none, no run of {baseline} finished with a validation reward"
    over = "one seed" if seeds == 1 else f"mean over {seeds} seeds"
    return f"{prefix}{threshold:.3f}, the final validation reward of {baseline} ({over})"


def _logged(cell: Cell, column: str) -> list[float]:
    return [value for value in cell.series.get(column, []) if value is not None]


def _validation(cell: Cell, column: str) -> tuple[list[float], list[float]]:
    """Where the run stood by a column at each validation, 0 before it was ever logged, and the validation rewards."""
    rewards, stood = cell.series.get("eval_reward", []), cell.series.get(column, [])
    latest: Iterable[float | None] = accumulate(stood, lambda known, value: known if value is None else value)
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
    samples = min((model.samples for model in models), default=0)
    powers = [2**i for i in range(samples.bit_length())]
    return {
        k: fmean(pass_at_k(model.samples, model.correct, k) for model in models)
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
