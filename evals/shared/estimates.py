"""Estimates over a few seeds, with confidence intervals.

Each kind of interval has its name (`STUDENT_T`, `BOOTSTRAP_T`, `CLOPPER_PEARSON`) beside the functions that compute
it. The report prints these names, so that the report always names the method that the code uses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, TypeGuard

import numpy as np
from scipy import integrate, stats

LEVEL = 0.95
RESAMPLES = 1000

# Names of the interval methods
STUDENT_T = "Student's t interval over seeds"
BOOTSTRAP_T = "t interval with a standard error bootstrapped over seeds and questions"
CLOPPER_PEARSON = "Clopper-Pearson interval over seeds"


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % confidence interval.

    Args:
        estimate: The estimate.
        low: Lower end of the interval; None if there is no interval, as with one seed.
        high: Upper end of the interval; None if there is no interval.
        n: Number of seeds, or of questions if the estimate is over questions.
        error: Standard error of the estimate, with n − 1 degrees of freedom. None if the interval does not come from
            Student's t.
    """

    estimate: float
    low: float | None
    high: float | None
    n: int
    error: float | None = field(default=None, compare=False)

    @property
    def ends(self) -> tuple[float, float] | None:
        """Both ends of the interval, or None if there is no interval."""
        return (self.low, self.high) if is_finite(self.low) and is_finite(self.high) else None

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0. False if there is no interval."""
        return self.ends is not None and self.ends[0] * self.ends[1] > 0

    @property
    def p_value(self) -> float | None:
        """Two-sided p-value of Student's t-test that the true value is 0. None if there is no standard error."""
        if self.error is None:
            return None
        if self.error == 0:
            return float(self.estimate == 0)
        return float(2 * stats.t.sf(abs(self.estimate) / self.error, self.n - 1))

    def at_level(self, level: float) -> Interval:
        """The interval estimate ± t · standard error at another level, or the same if there is no standard error."""
        if self.error is None:
            return self
        half = self.error * float(stats.t.ppf((1 + level) / 2, self.n - 1))
        return replace(self, low=self.estimate - half, high=self.estimate + half)

    def within(self, low: float, high: float) -> Interval:
        """The interval cut at the lowest and the highest possible value.

        The cut interval contains the true value exactly if the uncut interval does.
        """
        if self.low is None or self.high is None:
            return self
        return replace(self, low=max(self.low, low), high=min(self.high, high))


def is_finite(value: float | None) -> TypeGuard[float]:
    """Whether the value is a finite number, and not None."""
    return value is not None and math.isfinite(value)


def possible_range(values: Iterable[float]) -> tuple[float, float]:
    """0 and 1 if all values lie between them, as shares do. Otherwise there are no limits."""
    return (0.0, 1.0) if all(0 <= value <= 1 for value in values) else (-math.inf, math.inf)


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean over seeds with its `STUDENT_T` interval.

    The interval is mean ± t · standard error. Its width is 0 if all seeds agree exactly.

    Args:
        values: One number per seed.
    """
    error = float(stats.sem(values)) if len(values) > 1 else None
    return _t_interval(fmean(values), error, len(values))


def paired_difference(x: Sequence[float], y: Sequence[float]) -> Interval:
    """Mean of x − y over seeds with its `STUDENT_T` interval, paired by seed.

    Args:
        x: One number per seed.
        y: One number per seed, in the same order of seeds.
    """
    return mean_interval([a - b for a, b in zip(x, y, strict=True)])


def iqm_interval(scores: Sequence[Sequence[float]], resamples: int = RESAMPLES) -> Interval:
    """Interquartile mean (the mean of the middle half of all scores) with its `BOOTSTRAP_T` interval.

    The interval is IQM ± t · √(n / (n − 1)) · bootstrapped standard error, with n seeds and n − 1 degrees of freedom
    (Hesterberg 2015). A percentile bootstrap is not used: its interval never leaves the range of the seeds, so with
    2 to 4 seeds it covers the true value too rarely.

    Args:
        scores: Seeds × questions. With one seed or one question there is no interval.
        resamples: Number of bootstrap resamples.
    """
    matrix = np.asarray(scores, dtype=float)
    return _bootstrap_t(lambda drawn: _iqm(matrix[drawn]), matrix.shape, resamples)


def iqm_difference(x: Sequence[Sequence[float]], y: Sequence[Sequence[float]], resamples: int = RESAMPLES) -> Interval:
    """Difference of interquartile means, IQM(x) − IQM(y), with its `BOOTSTRAP_T` interval.

    Each resample uses the same seeds and questions for x and y.

    Args:
        x: Seeds × questions.
        y: Seeds × questions, in the same order.
        resamples: Number of bootstrap resamples.

    Raises:
        ValueError: The shapes differ.
    """
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if a.shape != b.shape:
        raise ValueError(
            f"Scores of shape {a.shape} and {b.shape} (seeds × questions) cannot be paired. Evaluate both on the same "
            "seeds and questions."
        )
    return _bootstrap_t(lambda drawn: _iqm(a[drawn]) - _iqm(b[drawn]), a.shape, resamples)


def probability_of_improvement(x: Sequence[float], y: Sequence[float]) -> Interval:
    """P(X > Y) + ½ P(X = Y) with its `CLOPPER_PEARSON` interval.

    The estimate uses all pairs of a run of x and a run of y: the Mann-Whitney U statistic divided by the number of
    pairs. The interval treats the runs of the smaller side as that many independent pairs and rounds the number of wins
    outwards. It assumes no distribution of the runs. The interval also stays wide if every x beats every y; a
    bootstrap would then give [1, 1]. As a consequence, five runs per side never exclude ½ (at best [0.48, 1]); six can.

    Args:
        x: One number per run.
        y: One number per run.
    """
    n = min(len(x), len(y))
    won = float(stats.mannwhitneyu(x, y).statistic) / max(len(x), len(y))
    if n == 1:
        return Interval(won, None, None, n)
    low = stats.binomtest(math.floor(won), n).proportion_ci(LEVEL, method="exact").low
    high = stats.binomtest(math.ceil(won), n).proportion_ci(LEVEL, method="exact").high
    return Interval(won / n, float(low), float(high), n)


def pass_at_k(samples: int | Sequence[int], correct: Sequence[int], k: int) -> float:
    """Unbiased pass@k (Chen et al. 2021): the mean over questions of 1 − C(n − c, k) / C(n, k).

    Args:
        samples: Number of completions per question, n: one number, or one for each question.
        correct: Number of correct completions of each question, c.
        k: Number of completions. At least one of them must be correct.

    Raises:
        ValueError: k is below 1 or above the smallest n.
    """
    counts = [samples] * len(correct) if isinstance(samples, int) else samples
    fewest = min(counts)
    if not 1 <= k <= fewest:
        raise ValueError(
            f"pass@{k} cannot be estimated from {fewest} samples per question. Choose k between 1 and {fewest}."
        )
    return fmean(1 - math.comb(n - c, k) / math.comb(n, k) for n, c in zip(counts, correct, strict=True))


def area_under_curve(steps: Sequence[float], values: Sequence[float]) -> float:
    """Mean height of a curve: the area under it (trapezoid rule) divided by its width.

    Args:
        steps: At least two steps in ascending order.
        values: Value of the curve at each step.
    """
    return float(integrate.trapezoid(values, steps)) / (steps[-1] - steps[0])


def first_reach(steps: Sequence[float], values: Sequence[float], threshold: float) -> float | None:
    """First step at which the curve is at or above the threshold, or None if it never is."""
    return next((step for step, value in zip(steps, values, strict=True) if value >= threshold), None)


def _t_interval(estimate: float, error: float | None, n: int) -> Interval:
    return Interval(estimate, None, None, n, error).at_level(LEVEL)


def _iqm(scores: np.ndarray) -> Any:
    return stats.trim_mean(scores.reshape(*scores.shape[:-2], -1), 0.25, axis=-1)


def _bootstrap_t(statistic: Callable[[Any], Any], shape: tuple[int, ...], resamples: int) -> Interval:
    def drawn(seeds, questions, axis=-1):
        return statistic((seeds[..., :, None], questions[..., None, :]))  # (resamples, seeds, questions)

    axes = [np.arange(size) for size in shape]
    n, error = shape[0], None
    if min(shape) > 1:
        # only the standard error is used, never the percentiles
        bootstrap = stats.bootstrap(
            axes, drawn, n_resamples=resamples, batch=100, vectorized=True, method="percentile", rng=0
        )
        error = float(bootstrap.standard_error) * math.sqrt(n / (n - 1))
    return _t_interval(float(drawn(*axes)), error, n)
