"""Estimates against numbers computed by hand, and intervals on simulated studies with known differences."""

import warnings
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from evals.shared.estimates import (
    BOOTSTRAP_T,
    STUDENT_T,
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

STUDIES_FOLDER = Path(__file__).parents[3] / "evals" / "studies"
STUDIES = 400
QUESTIONS = 40
SAMPLES = 8
RESAMPLES = 200


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def studies(seeds, effect, run=0.5, count=STUDIES):
    """Simulated pairs of score matrices (seeds × questions), with effects of question, run and algorithm, and noise."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        question = rng.normal(0, 1.5, QUESTIONS)
        sides = []
        for better in (effect, 0.0):
            logit = question + rng.normal(0, run, (seeds, 1)) + rng.normal(0, 0.3, (seeds, QUESTIONS)) + better
            sides.append(rng.binomial(SAMPLES, 1 / (1 + np.exp(-logit))) / SAMPLES)
        yield sides


def covers(interval, truth):
    return interval.low <= truth <= interval.high


def test_mean_interval():
    # sd 1, standard error 1 / √3, t of 2 degrees of freedom 4.302653
    interval = mean_interval([1, 2, 3])
    assert interval.estimate == 2
    assert interval.high - 2 == 2 - interval.low == pytest.approx(4.302653 / 3**0.5)
    assert interval.n == 3


def test_paired_difference():
    # differences 1, 2, 0
    assert paired_difference([5, 7, 3], [4, 5, 3]) == mean_interval([1, 2, 0])
    with pytest.raises(ValueError):
        paired_difference([1, 2], [1])


def test_one_run_has_no_interval():
    assert mean_interval([0.5]) == Interval(0.5, None, None, 1)
    assert paired_difference([0.5], [0.25]) == Interval(0.25, None, None, 1)
    assert iqm_interval([[0.0, 0.5, 0.5, 1.0]]) == Interval(0.5, None, None, 1)
    assert iqm_difference([[1.0, 1.0]], [[0.5, 0.5]]) == Interval(0.5, None, None, 1)
    assert probability_of_improvement([1], [0]) == Interval(1.0, None, None, 1)


def test_runs_that_agree_have_an_interval_of_width_zero():
    assert paired_difference([0.5, 0.25], [0.5, 0.25]) == Interval(0.0, 0.0, 0.0, 2)
    assert iqm_interval([[0.5, 0.5]] * 3) == Interval(0.5, 0.5, 0.5, 3)


def test_the_mean_interval_has_its_nominal_coverage():
    rng = np.random.default_rng(0)
    covered = np.mean([covers(mean_interval(rng.normal(3, 2, 5)), 3) for _ in range(2000)])
    assert covered == pytest.approx(0.95, abs=0.015)  # 0.88 with the normal quantile in place of t's


def test_iqm_is_the_mean_of_the_middle_half():
    # of 0 … 7 the values 0, 1, 6 and 7 are left out
    assert iqm_interval([[0, 1, 2, 3], [7, 6, 5, 4]]).estimate == 3.5
    assert iqm_interval([[0, 3, 4, 500], [-90, 2, 5, 6]]).estimate == 3.5


def test_iqm_interval_against_every_resample():
    scores = np.array([[0.0, 0.2, 0.9], [0.4, 0.5, 1.0]])
    draws = product(product(range(2), repeat=2), product(range(3), repeat=3))
    exact = np.std([stats.trim_mean(scores[np.ix_(seeds, questions)].ravel(), 0.25) for seeds, questions in draws])
    interval = iqm_interval(scores, resamples=20_000)
    # √(n / (n − 1)) is √2 for two seeds; t of 1 degree of freedom is 12.7062
    assert interval.high - interval.estimate == pytest.approx(12.7062 * 2**0.5 * exact, rel=0.02)
    assert interval.estimate - interval.low == pytest.approx(interval.high - interval.estimate)
    assert interval == iqm_interval(scores, resamples=20_000)


def test_iqm_difference_draws_the_same_seeds_and_questions_for_both():
    y = np.random.default_rng(0).random((5, 20))
    interval = iqm_difference(y + 0.25, y)
    assert (interval.low, interval.estimate, interval.high) == pytest.approx((0.25, 0.25, 0.25))
    with pytest.raises(ValueError, match=r"\(5, 20\) and \(5, 19\)"):
        iqm_difference(y, y[:, 1:])


def test_one_question_has_no_iqm_interval():
    assert iqm_interval([[0.25], [0.75]]) == Interval(0.5, None, None, 2)


def test_probability_of_improvement_counts_ties_half():
    # 3 > 2, 3 > 1, 1 < 2, 1 = 1: 2.5 of 4 pairs won, so 1.25 of 2; rounded outwards 1 and 2
    interval = probability_of_improvement([3, 1], [2, 1])
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((0.625, 1 - 0.975**0.5, 1.0))
    assert probability_of_improvement([1, 1], [1, 1]).estimate == 0.5


def test_probability_of_improvement_stays_wide_if_all_runs_are_better():
    # all 5 pairs are won with probability p⁵, so p = 0.025^(1/5) is not excluded
    interval = probability_of_improvement([6, 7, 8, 9, 10], [1, 2, 3, 4, 5])
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((1.0, 0.025**0.2, 1.0))
    worse = probability_of_improvement([1, 2, 3, 4, 5, 0, 0], [6, 7, 8, 9, 10])
    assert (worse.low, worse.high, worse.n) == pytest.approx((0.0, 1 - 0.025**0.2, 5))


@pytest.mark.sweep
@pytest.mark.parametrize(("seeds", "p"), [(5, 0.5), (10, 0.5), (10, 0.9)])
def test_probability_of_improvement_covers_for_any_distribution(seeds, p):
    # the hardest case: x is ±1 and y is near 0, so each run of x beats all runs of y or none
    rng = np.random.default_rng(0)
    runs = ((rng.choice([1.0, -1.0], seeds, p=[p, 1 - p]), rng.normal(0, 0.01, seeds)) for _ in range(STUDIES))
    assert np.mean([covers(probability_of_improvement(x, y), p) for x, y in runs]) >= 0.93


def test_pass_at_k_against_all_choices():
    outcomes = [[1, 0, 0, 0, 0], [1, 1, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]
    for k in range(1, 6):
        expected = np.mean([np.mean([any(chosen) for chosen in combinations(outcome, k)]) for outcome in outcomes])
        assert pass_at_k(5, [sum(outcome) for outcome in outcomes], k) == pytest.approx(expected)
    assert pass_at_k(4, [1], 2) == 0.5  # 1 − C(3, 2) / C(4, 2) = 1 − 3/6
    assert pass_at_k([4, 3], [1, 1], 2) == pytest.approx((1 / 2 + 2 / 3) / 2)  # 1 − C(2, 2) / C(3, 2) = 2/3


@pytest.mark.parametrize("k", [0, 5])
def test_pass_at_k_needs_k_samples(k):
    with pytest.raises(ValueError, match="Choose k between 1 and 4"):
        pass_at_k([5, 4], [2, 2], k)


def test_area_under_curve_is_the_mean_height():
    # (10 · ½ + 30 · 1) / 40
    assert area_under_curve([5, 15, 45], [0, 1, 1]) == 35 / 40


def test_first_reach():
    assert first_reach([10, 20, 30], [0.1, 0.5, 0.4], 0.5) == 20
    assert first_reach([10, 20, 30], [0.1, 0.5, 0.4], 0.4) == 20
    assert first_reach([10, 20, 30], [0.1, 0.5, 0.4], 0.6) is None


def differences(x, y):
    """Each kind of difference between two algorithms, with its value if they are equally good."""
    means = x.mean(axis=1), y.mean(axis=1)
    return {
        "mean": (paired_difference(*means), 0.0),
        "iqm": (iqm_difference(x, y, RESAMPLES), 0.0),
        "improvement": (probability_of_improvement(*means), 0.5),
    }


@pytest.mark.sweep
@pytest.mark.parametrize(("seeds", "run"), [(5, 0.2), (5, 0.8), (2, 0.8)])
def test_intervals_cover_zero_without_a_difference(seeds, run):
    simulated = [differences(x, y) for x, y in studies(seeds, effect=0.0, run=run)]
    for name in simulated[0]:
        assert np.mean([covers(*one[name]) for one in simulated]) >= 0.9, name


def test_a_known_difference_is_found():
    simulated = [differences(x, y) for x, y in studies(seeds=6, effect=1.0, run=0.25, count=200)]
    found = {name: np.mean([one[name][0].low > one[name][1] for one in simulated]) for name in simulated[0]}
    assert found["mean"] >= 0.95
    assert found["iqm"] >= 0.9
    assert found["improvement"] >= 0.6  # all six runs of one side must be better


def test_the_studies_name_the_interval_methods_of_the_code():
    control, stability = (
        " ".join((STUDIES_FOLDER / name / "README.md").read_text().split()) for name in ("control", "stability")
    )
    assert BOOTSTRAP_T.replace("questions", "episodes") in control
    assert STUDENT_T in stability
    assert "bootstrap" not in stability.lower()
