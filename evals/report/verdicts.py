"""The sentences that say which of two algorithms is better."""

from __future__ import annotations

from collections.abc import Sequence

from ..shared.estimates import Interval


def verdict(algorithm: str, baseline: str, finals: Sequence[tuple[float, float]], difference: Interval) -> str:
    """State which algorithm is better, by how much and with what interval.

    Args:
        algorithm: Name of the algorithm.
        baseline: Name of the baseline.
        finals: Final scores of both, one pair (algorithm, baseline) per seed.
        difference: Difference of the final scores, paired by seed.
    """
    by, n = difference.estimate, difference.n
    if difference.low is None or difference.high is None:
        [(ours, theirs)] = finals
        return f"{algorithm} {ours:.2f}, {baseline} {theirs:.2f} (one seed, so no confidence interval)"
    low, high = difference.low, difference.high
    if low == high == 0:
        return f"{algorithm} and {baseline} have the same score on each of {n} seeds"
    if low > 0:
        return f"{algorithm} beats {baseline} by {by:z.3f} ({low:z.3f} to {high:z.3f}, {n} seeds)"
    if high < 0:
        return f"{baseline} beats {algorithm} by {-by:z.3f} ({-high:z.3f} to {-low:z.3f}, {n} seeds)"
    between = f"{algorithm} and {baseline} ({n} seeds)"
    return f"No significant difference between {between}: {by:z.3f} ({low:z.3f} to {high:z.3f})"


def threshold_line(point: str, baseline: str, threshold: float | None, seeds: int) -> str:
    """State the validation reward that counts as the threshold at a grid point.

    Args:
        point: Name of the grid point; empty if there is no grid.
        baseline: Name of the baseline.
        threshold: The threshold, or None if no run of the baseline finished.
        seeds: Number of seeds that it is averaged over.
    """
    prefix = f"{point}: " if point else ""
    if threshold is None:
        return f"{prefix}none, because no run of {baseline} finished with a validation reward"
    over = "one seed" if seeds == 1 else f"mean over {seeds} seeds"
    return f"{prefix}{threshold:.3f}, the final validation reward of {baseline} ({over})"
