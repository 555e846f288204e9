"""Holm's correction for several comparisons with one baseline.

Source: Holm, S. (1979). A simple sequentially rejective multiple test procedure. Scandinavian Journal of Statistics 6,
65-70.

Among many contenders without any true difference, some contender differs "significantly" by luck. Holm's step-down
procedure keeps the chance that this happens at all at 5 %, for any dependence between the comparisons. It sorts the m
p-values and compares the i-th smallest with α / (m − i + 1). It stops at the first p-value that is larger, and rejects
only the hypotheses before it.
"""

from __future__ import annotations

from collections.abc import Sequence

from .estimates import LEVEL, Interval


def corrected_p_values(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values corrected for their number. Holm's procedure rejects those of at most α.

    The i-th smallest of m p-values is multiplied by m − i + 1. No corrected value is smaller than the one before it.
    None, for a comparison that cannot be tested, stays None and does not count towards m.

    >>> [round(p, 3) for p in corrected_p_values([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    corrected: list[float | None] = [None] * len(p_values)
    tested = {place: p for place, p in enumerate(p_values) if p is not None}
    highest = 0.0
    for rank, place in enumerate(sorted(tested, key=lambda place: tested[place])):
        highest = max(highest, min(tested[place] * (len(tested) - rank), 1.0))
        corrected[place] = highest
    return corrected


def corrected_intervals(intervals: Sequence[Interval]) -> list[Interval]:
    """Intervals that agree with Holm's decisions.

    The interval of the i-th smallest of m p-values has the level 1 − α / (m − i + 1). From the first p-value that is
    not rejected on, all intervals have the level of that one. An interval excludes 0 exactly if Holm's procedure
    rejects the difference 0. These intervals promise no more than that. They are not a joint confidence region: the
    chance that all of them contain their true values can be below 95 %.

    Args:
        intervals: The family of comparisons. Those without a p-value, such as differences of one seed, do not count
            towards m and are returned unchanged.
    """
    corrected = list(intervals)
    tested = {place: p for place, interval in enumerate(intervals) if (p := interval.p_value) is not None}
    remaining = len(tested)
    for place in sorted(tested, key=lambda place: tested[place]):
        threshold = (1 - LEVEL) / remaining
        corrected[place] = intervals[place].at_level(1 - threshold)
        remaining -= tested[place] <= threshold
    return corrected
