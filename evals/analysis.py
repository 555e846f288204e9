"""From the cells of a comparison to the numbers of its report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .results import Results
from .stability import Sign
from .statistics import Interval


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
        collapsed: Seeds that collapsed.
        first_signs: Sign → seeds in which it came first.
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

    Args:
        setting: The point of the grid.
        algorithm: The one that is held against the baseline, which is the first of `Results.algorithms`.
        last: Difference of mean@k of the final models, paired by seed.
        best: The same of the best checkpoints.
        iqm: Difference of the interquartile means, bootstrapped over seeds and questions.
        area: Difference of the areas under the validation curves, paired by seed.
        improvement: Probability that a run of the algorithm beats a run of the baseline, ties counted half.
        verdict: One sentence: which is better, by how much and how sure, or that the seeds do not tell.
    """

    setting: dict[str, Any]
    algorithm: str
    last: Interval
    best: Interval
    iqm: Interval
    area: Interval | None
    improvement: Interval
    verdict: str


@dataclass(frozen=True)
class Analysis:
    """All the numbers of a report.

    Args:
        baseline: The first algorithm.
        thresholds: A line for each point of the grid: the validation reward called the threshold there, and why.
        rows: By point of the grid, then by algorithm.
        comparisons: By point of the grid, then by algorithm, without the baseline itself.
        signs: Cell folder → the signs of collapse in the order they came.
    """

    baseline: str
    thresholds: list[str]
    rows: list[Row]
    comparisons: list[Comparison]
    signs: dict[str, list[Sign]]


def analyse(results: Results) -> Analysis:
    """The numbers of a comparison's report, from its cells alone."""
    raise NotImplementedError
