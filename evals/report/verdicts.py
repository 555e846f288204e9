"""Which of two algorithms is better, in a word and in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from ..shared.estimates import Interval

THRESHOLD_SHARE = 0.9


def outcome(difference: Interval) -> str:
    """`"better"` or `"worse"` if the interval excludes 0, `"equal"` if all seeds are equal, else `"undecided"`."""
    if difference.ends == (0, 0):
        return "equal"
    if not difference.excludes_zero:
        return "undecided"
    return "better" if difference.estimate > 0 else "worse"


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


def threshold_line(point: str, threshold: float | None) -> str:
    """State the validation reward that counts as the threshold at a grid point.

    Args:
        point: Name of the grid point; empty if there is no grid.
        threshold: The threshold, or None if no algorithm ended above the first validation.
    """
    prefix = f"{point}: " if point else ""
    if threshold is None:
        return f"{prefix}none, because no algorithm ended above its first validation reward"
    return f"{prefix}a validation reward of {threshold:.3f}"
