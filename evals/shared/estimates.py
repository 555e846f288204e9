"""Estimates with the intervals that a few seeds allow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from scipy import integrate, stats

LEVEL = 0.95
RESAMPLES = 1000


@dataclass(frozen=True)
class Interval:
    """An estimate over `n` runs with its 95 % confidence interval; of one run no interval is claimed."""

    estimate: float
    low: float | None
    high: float | None
    n: int


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean over runs, ± t · standard error; of width 0 where several runs agree exactly.

    Args:
        values: One number a run.
    """
    error = float(stats.sem(values)) if len(values) > 1 else None
    return _t_interval(fmean(values), error, len(values))


def paired_difference(x: Sequence[float], y: Sequence[float]) -> Interval:
    """Mean of x − y over runs that share a seed, with the paired t interval.

    Args:
        x, y: One number a run, in the same order of seeds.
    """
    return mean_interval([a - b for a, b in zip(x, y, strict=True)])


def iqm_interval(scores: Sequence[Sequence[float]], resamples: int = RESAMPLES) -> Interval:
    """Interquartile mean, the mean of the middle half of all scores, bootstrapped over seeds and questions.

    The interval is ± t · √(n / (n − 1)) · bootstrapped standard error, with t for n − 1 degrees of freedom and n seeds
    (Hesterberg 2015). Percentiles of the bootstrap never leave the range of the seeds: of 2 to 4 seeds they cover too
    seldom at any level.

    Args:
        scores: Seeds × questions. No interval is claimed of one seed, nor of one question.
    """
    matrix = np.asarray(scores, dtype=float)
    return _crossed_bootstrap(lambda drawn: _iqm(matrix[drawn]), matrix.shape, resamples)


def iqm_difference(x: Sequence[Sequence[float]], y: Sequence[Sequence[float]], resamples: int = RESAMPLES) -> Interval:
    """Interquartile mean of x minus that of y, as `iqm_interval`, with the same seeds and questions drawn for both.

    Args:
        x, y: Seeds × questions, both in the same order.

    Raises:
        ValueError: The shapes differ.
    """
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if a.shape != b.shape:
        raise ValueError(
            f"Scores of {a.shape} and {b.shape} seeds × questions are no pair. Evaluate both on the same questions."
        )
    return _crossed_bootstrap(lambda drawn: _iqm(a[drawn]) - _iqm(b[drawn]), a.shape, resamples)


def probability_of_improvement(x: Sequence[float], y: Sequence[float]) -> Interval:
    """P(X > Y) + ½ P(X = Y), estimated over all pairs of a run of x and a run of y: Mann and Whitney's U / (n·m).

    The interval is Clopper and Pearson's for as many independent pairs as the smaller side has runs, with the wins
    rounded outwards. It assumes nothing of how the runs are spread and stays honest where every x beats every y: a
    bootstrap would then claim [1, 1]. The price: five runs a side, [0.48, 1] at best, never exclude ½; six do.

    Args:
        x, y: One number a run.
    """
    n = min(len(x), len(y))
    won = float(stats.mannwhitneyu(x, y).statistic) / max(len(x), len(y))
    if n == 1:
        return Interval(won, None, None, n)
    low = stats.binomtest(math.floor(won), n).proportion_ci(LEVEL).low
    high = stats.binomtest(math.ceil(won), n).proportion_ci(LEVEL).high
    return Interval(won / n, float(low), float(high), n)


def pass_at_k(samples: int, correct: Sequence[int], k: int) -> float:
    """Unbiased pass@k (Chen et al. 2021), mean over questions of 1 − C(n − c, k) / C(n, k).

    Args:
        samples: Completions a question, n.
        correct: The right ones of them, c, by question.
        k: Completions that one of must be right.

    Raises:
        ValueError: k is below 1 or above n.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} cannot be estimated from {samples} samples a question. Take k from 1 to {samples}.")
    return fmean(1 - math.comb(samples - c, k) / math.comb(samples, k) for c in correct)


def area_under_curve(steps: Sequence[float], values: Sequence[float]) -> float:
    """Area under a curve divided by its width, by the trapezoid rule: its mean height.

    Args:
        steps: At least two, ascending.
        values: The curve at each of them.
    """
    return float(integrate.trapezoid(values, steps)) / (steps[-1] - steps[0])


def first_reach(steps: Sequence[float], values: Sequence[float], threshold: float) -> float | None:
    """The first of the steps at which the curve is at the threshold or above; None if it never is."""
    return next((step for step, value in zip(steps, values, strict=True) if value >= threshold), None)


def _t_interval(estimate: float, error: float | None, n: int) -> Interval:
    if error is None:
        return Interval(estimate, None, None, n)
    half = error * float(stats.t.ppf((1 + LEVEL) / 2, n - 1))
    return Interval(estimate, estimate - half, estimate + half, n)


def _iqm(scores: np.ndarray) -> Any:
    return stats.trim_mean(scores.reshape(*scores.shape[:-2], -1), 0.25, axis=-1)


def _crossed_bootstrap(statistic: Callable[[Any], Any], shape: tuple[int, ...], resamples: int) -> Interval:
    def drawn(seeds, questions, axis=-1):
        return statistic((seeds[..., :, None], questions[..., None, :]))  # (resamples, seeds, questions)

    axes = [np.arange(size) for size in shape]
    n, error = shape[0], None
    if min(shape) > 1:
        bootstrap = stats.bootstrap(
            axes, drawn, n_resamples=resamples, batch=100, vectorized=True, method="percentile", rng=0
        )
        error = float(bootstrap.standard_error) * math.sqrt(n / (n - 1))
    return _t_interval(float(drawn(*axes)), error, n)
