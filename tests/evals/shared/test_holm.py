"""Holm's correction, against numbers computed by hand, against its definition, and on simulated comparisons."""

from itertools import pairwise

import numpy as np
import pytest

from evals.shared.estimates import Interval, mean_interval
from evals.shared.holm import corrected_intervals, corrected_p_values


def test_p_values_are_corrected_step_by_step():
    """Sorted 0.001, 0.01, 0.02, 0.4 times 4, 3, 2, 1: 0.004, 0.03, 0.04, 0.4. Each p-value keeps its place."""
    assert corrected_p_values([0.02, 0.001, 0.4, 0.01]) == pytest.approx([0.04, 0.004, 0.4, 0.03])
    # 0.03 · 2 = 0.06 is larger than 0.04 · 1, which is raised to 0.06; 0.9 · 2 is cut at 1
    assert corrected_p_values([0.04, 0.03]) == pytest.approx([0.06, 0.06])
    assert corrected_p_values([0.9, 0.95]) == [1, 1]
    assert corrected_p_values([None, 0.04, 0.03]) == [None, *corrected_p_values([0.04, 0.03])]


def test_intervals_have_the_levels_of_the_steps():
    """With 1 degree of freedom, the p-value of an estimate at t standard errors is 1 − 2 · arctan(t) / π.

    The ends are at tan(π/2 · level) standard errors. At 100, 40 and 10 standard errors, p is 0.0064, 0.0159 and 0.0635.
    These are compared with 0.05/3 = 0.0167, 0.05/2 = 0.025 and 0.05, so the first two are rejected.
    """
    steps = [Interval(t, None, None, 2, 1.0) for t in (10.0, 100.0, 40.0)]
    last, first, second = corrected_intervals(steps)
    assert first.high - 100 == pytest.approx(38.1885, abs=1e-3)  # tan(π/2 · (1 − 0.05/3))
    assert 100 - first.low == pytest.approx(38.1885, abs=1e-3)
    assert second.high - 40 == pytest.approx(25.4517, abs=1e-3)  # tan(π/2 · 0.975)
    assert last.high - 10 == pytest.approx(12.7062, abs=1e-3)  # tan(π/2 · 0.95)
    assert [one.excludes_zero for one in (first, second, last)] == [True, True, False]


def test_after_the_first_decision_for_zero_no_interval_becomes_narrower():
    """At 20 and 15 standard errors, p is 0.0318 and 0.0424. The first is above 0.05/2, so the second, which is below
    0.05, is not rejected either. Both intervals end at tan(π/2 · 0.975) = 25.45 standard errors."""
    found = corrected_intervals([Interval(t, None, None, 2, 1.0) for t in (20.0, 15.0)])
    assert [one.high - one.estimate for one in found] == pytest.approx([25.4517, 25.4517], abs=1e-3)
    assert not any(one.excludes_zero for one in found)


def test_differences_without_a_p_value_do_not_count():
    alone, tested = Interval(0.5, None, None, 1), mean_interval([0.1, 0.2, 0.4])
    assert corrected_intervals([alone, tested]) == [alone, tested]
    assert corrected_intervals([]) == []


def test_seeds_that_agree_exactly():
    same, shifted = mean_interval([0.0, 0.0]), mean_interval([0.25, 0.25])
    assert (same.p_value, shifted.p_value) == (1, 0)
    assert [one.excludes_zero for one in corrected_intervals([same, shifted])] == [False, True]


def simulated(effects, seeds, count):
    """Families of intervals of differences from a common baseline, with the given true effects."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        baseline = rng.normal(size=seeds)
        yield [mean_interval(effect + rng.normal(size=seeds) - baseline) for effect in effects]


def test_an_interval_excludes_zero_exactly_if_holm_rejects():
    """The decisions follow the definition: the i-th smallest p-value and all before it are ≤ 0.05 / (m − i + 1)."""
    counts = set()
    for family in simulated([0, 0, 1, 1.5, 2, 4], 4, 300):
        p_values = [one.p_value for one in family]
        order = np.argsort(p_values)
        rejected = set()
        for i, place in enumerate(order):
            if p_values[place] > 0.05 / (len(family) - i):
                break
            rejected.add(place)
        corrected = corrected_intervals(family)
        assert {place for place, one in enumerate(corrected) if one.excludes_zero} == rejected
        assert {place for place, p in enumerate(corrected_p_values(p_values)) if p <= 0.05} == rejected
        widths = [(corrected[place].high - corrected[place].low) / family[place].error for place in order]
        assert all(after <= before + 1e-9 for before, after in pairwise(widths))
        counts.add(len(rejected))
    assert {0, 1, 2, 3} <= counts  # all kinds of families occur


@pytest.mark.slow
def test_the_chance_of_any_false_difference_is_at_most_5_percent():
    """Eight contenders without a true difference share a baseline: 1,000 families with 5 seeds. The standard error of a
    rate of 5 % is 0.7 %. Without the correction, a fifth of the families have a false difference."""
    families = list(simulated([0.0] * 8, 5, 1000))
    corrected = np.mean([any(one.excludes_zero for one in corrected_intervals(family)) for family in families])
    uncorrected = np.mean([any(one.excludes_zero for one in family) for family in families])
    assert 0.015 < corrected < 0.065
    assert uncorrected > 0.15


@pytest.mark.slow
def test_true_differences_do_not_hide_false_ones():
    """Four of eight contenders differ truly and clearly. Among the other four, a false difference is still rare."""
    families = [corrected_intervals(family) for family in simulated([0.0] * 4 + [20.0] * 4, 5, 1000)]
    assert np.mean([any(one.excludes_zero for one in family[:4]) for family in families]) < 0.065
    assert np.mean([all(one.excludes_zero for one in family[4:]) for family in families]) > 0.95
