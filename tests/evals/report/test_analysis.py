"""The numbers of a report, checked against values computed by hand."""

import pytest

from evals.report.analysis import analyse
from evals.shared.estimates import Interval, mean_interval, paired_difference

GRPO = [[0, 1, 2, 3], [1, 1, 2, 3], [0, 0, 2, 3]]  # means of four samples: 6/16, 7/16, 5/16
GBPO = [[2, 3, 4, 4], [2, 3, 4, 4], [2, 2, 4, 4]]  # 13/16, 13/16, 12/16


@pytest.fixture
def results(make_results, make_cell):
    cells = [make_cell("grpo", seed, correct) for seed, correct in enumerate(GRPO)]
    return make_results(cells + [make_cell("gbpo", seed, correct) for seed, correct in enumerate(GBPO)])


def summary(analysis, algorithm, setting=None):
    [found] = [s for s in analysis.summaries if (s.algorithm, s.setting) == (algorithm, setting or {})]
    return found


def test_the_final_models(results):
    found = summary(analyse(results), "grpo")
    assert (found.seeds, found.failed) == (3, 0)
    assert found.last == mean_interval([6 / 16, 7 / 16, 5 / 16])
    assert found.best == found.last
    assert found.majority == mean_interval([1 / 4, 1 / 4, 1 / 4])  # only 3 of 4 is a majority
    assert found.greedy == mean_interval([3 / 4, 1, 2 / 4])
    # middle half of 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3 quarters: 1, 1, 1, 2, 2, 2
    assert found.iqm.estimate == pytest.approx(1.5 / 4)
    assert found.kl_to_start == 0.5


def test_pass_at_powers_of_two(results):
    found = summary(analyse(results), "grpo").pass_at
    # with 0, 1, 2, 3 of 4 samples correct, pass@2 is 0, 1 − 3/6, 1 − 1/6, 1
    at_two = {0: 0, 1: 1 / 2, 2: 5 / 6, 3: 1}
    assert found[2] == pytest.approx(sum(at_two[c] for run in GRPO for c in run) / 12)
    assert found[1] == pytest.approx(18 / 48)
    assert found[4] == pytest.approx(9 / 12)
    assert list(found) == [1, 2, 4]


def test_pass_at_k_if_the_number_of_samples_is_not_a_power_of_two(make_results, make_cell):
    made = make_cell("grpo", 0, [1, 6])
    made.last.samples = 6
    assert list(summary(analyse(make_results([made])), "grpo").pass_at) == [1, 2, 4, 6]


def test_the_verdict_names_the_winner(results):
    [difference] = analyse(results).differences
    # differences 7/16, 6/16, 7/16: mean 5/12, standard error 1/48, t of 2 degrees of freedom 4.302653
    assert difference.last == paired_difference([13 / 16, 13 / 16, 12 / 16], [6 / 16, 7 / 16, 5 / 16])
    assert difference.verdict == "gbpo beats grpo by 0.417 (0.327 to 0.506, 3 seeds)"
    assert (difference.best, difference.area) == (difference.last, Interval(0.0, 0.0, 0.0, 3))
    # the middle halves: 1, 1, 1, 2, 2, 2 against 2, 3, 3, 4, 4, 4 quarters
    assert difference.iqm.estimate == pytest.approx((20 - 9) / 6 / 4)
    assert difference.improvement.estimate == 1


def test_the_verdict_when_the_baseline_wins(results):
    results.algorithms.reverse()
    [difference] = analyse(results).differences
    assert (difference.algorithm, difference.last.estimate) == ("grpo", pytest.approx(-5 / 12))
    assert difference.verdict == "gbpo beats grpo by 0.417 (0.327 to 0.506, 3 seeds)"


def test_the_verdict_without_a_significant_difference(make_results, make_cell):
    made = [make_cell("grpo", seed, [2, 2]) for seed in (0, 1)]
    made += [make_cell("gbpo", 0, [2, 2]), make_cell("gbpo", 1, [2, 3])]
    # differences 0, 1/8: mean 1/16, standard error 1/16, t of 1 degree of freedom 12.7062
    [difference] = analyse(make_results(made)).differences
    assert difference.verdict == "No significant difference between gbpo and grpo (2 seeds): 0.062 (-0.732 to 0.857)"


def test_the_verdict_when_all_seeds_are_equal(make_results, make_cell):
    made = [make_cell(algorithm, seed, [1, 2]) for algorithm in ("grpo", "gbpo") for seed in (0, 1)]
    [difference] = analyse(make_results(made)).differences
    assert difference.verdict == "gbpo and grpo have the same score on each of 2 seeds"


def test_one_seed_has_no_interval(make_results, make_cell):
    analysis = analyse(make_results([make_cell("grpo", 0, [1, 2]), make_cell("gbpo", 0, [2, 3])]))
    [difference] = analysis.differences
    assert difference.verdict == "gbpo 0.62, grpo 0.38 (one seed, so no confidence interval)"
    claims = [difference.last, difference.best, difference.iqm, difference.area, difference.improvement]
    for found in analysis.summaries:
        claims += [found.last, found.best, found.iqm, found.majority, found.greedy, found.area]
    assert all(claim.low is None and claim.high is None and claim.n == 1 for claim in claims)


def test_only_seeds_that_both_finished_are_compared(make_results, make_cell):
    made = [make_cell("grpo", seed, [1, 2]) for seed in (0, 1, 2)]
    made[0] = make_cell("grpo", 0, None, status="failed", series={"step": []}, reason="killed")
    made += [make_cell("gbpo", 2, [2, 3]), make_cell("gbpo", 1, [1, 3]), make_cell("gbpo", 0, [4, 4])]
    made += [make_cell("gbpo", 3, None, status="missing")]
    analysis = analyse(make_results(made))
    [difference] = analysis.differences
    assert difference.last == paired_difference([1 / 2, 5 / 8], [3 / 8, 3 / 8])
    assert difference.improvement.n == 2
    assert (summary(analysis, "grpo").seeds, summary(analysis, "grpo").failed) == (2, 1)
    assert (summary(analysis, "gbpo").seeds, summary(analysis, "gbpo").failed) == (3, 0)


def test_grid_points_are_compared_separately(make_results, make_cell):
    small, large = {"epsilon": 0.2}, {"epsilon": 0.5}
    made = [make_cell("grpo", seed, [2, 2], small) for seed in (0, 1)]
    made += [make_cell("gbpo", seed, [3, 3], small) for seed in (0, 1)]
    made += [make_cell("grpo", 0, None, large, status="failed"), make_cell("gbpo", 0, [1, 1], large)]
    analysis = analyse(make_results(made))
    assert [(r.setting, r.algorithm) for r in analysis.summaries] == [
        (setting, algorithm) for setting in (small, large) for algorithm in ("grpo", "gbpo")
    ]
    [difference] = analysis.differences
    assert (difference.setting, difference.last.estimate) == (small, 0.25)
    assert analysis.thresholds == [
        "epsilon=0.2: 0.400, the final validation reward of grpo (mean over 2 seeds)",
        "epsilon=0.5: none, because no run of grpo finished with a validation reward",
    ]
    found = summary(analysis, "gbpo", large)
    assert (found.reached, found.steps_to_threshold) == (0, None)


def test_nothing_finished(make_results, make_cell):
    bare = {"status": "missing", "train_seconds": None, "peak_memory_gb": None, "series": {"step": []}}
    analysis = analyse(make_results([make_cell(a, 0, None, **bare) for a in ("grpo", "gbpo")]))
    assert (analysis.differences, analysis.signs) == ([], {})
    found = summary(analysis, "gbpo")
    assert (found.seeds, found.collapsed, found.pass_at, found.first_signs) == (0, 0, {}, {})
    assert {found.last, found.best, found.iqm, found.area, found.max_drawdown, found.entropy, found.ratio} == {None}


def test_a_finished_run_may_lack_everything(make_results, make_cell):
    made = [make_cell(a, 0, None, train_seconds=None) for a in ("grpo", "gbpo")]
    for cell in made:
        cell.series = {}
    analysis = analyse(make_results(made))
    assert (summary(analysis, "gbpo").seeds, summary(analysis, "gbpo").last, analysis.differences) == (1, None, [])


def test_without_checkpoints_there_is_no_best(results):
    for cell in results.cells:
        cell.best = None
    analysis = analyse(results)
    assert summary(analysis, "gbpo").best is None
    assert analysis.differences[0].best is None


def validated(*rewards):
    """Validations at steps 20, 40, … each after a log."""
    pairs = [[(20 * (i + 1), reward) for reward in (None, value)] for i, value in enumerate(rewards)]
    rows = [row for pair in pairs for row in pair]
    return {
        "step": [step for step, _ in rows],
        "eval_reward": [reward for _, reward in rows],
        "elapsed": [step / 10 if reward is None else None for step, reward in rows],
        "num_tokens": [step * 10 if reward is None else None for step, reward in rows],
    }


def test_steps_tokens_and_seconds_to_the_threshold(make_results, make_cell):
    made = [make_cell("grpo", i, [1], series=validated(*curve)) for i, curve in enumerate([(0.1, 0.3), (0.2, 0.5)])]
    curves = [(0.4, 0.2, 0.2), (0.1, 0.1, 0.45), (0.1, 0.2, 0.3)]
    made += [make_cell("gbpo", i, [1], series=validated(*curve)) for i, curve in enumerate(curves)]
    analysis = analyse(make_results(made))
    assert analysis.thresholds == ["0.400, the final validation reward of grpo (mean over 2 seeds)"]
    gbpo = summary(analysis, "gbpo")
    # the seeds reach it after 20 steps, after 60 steps and never, so the median is 60
    assert (gbpo.reached, gbpo.steps_to_threshold) == (2, 60)
    assert (gbpo.tokens_to_threshold, gbpo.seconds_to_threshold) == (600, 6)
    # one of two seeds reached it
    grpo = summary(analysis, "grpo")
    assert (grpo.reached, grpo.steps_to_threshold, grpo.tokens_to_threshold) == (1, None, None)
    # (0.1 + 0.3) / 2, (0.2 + 0.5) / 2
    assert grpo.area.estimate == pytest.approx((0.2 + 0.35) / 2)


def test_training_behaviour(make_results, make_cell):
    other = make_cell("grpo", 1, [1], train_seconds=8.0, peak_memory_gb=2.5)
    other.series["entropy"] = [3.0, None, None, None, 0.5, None]
    other.series["gbpo/ratio_p99"] = [2.0, 1.0, None, 1.0, 1.0, None]
    found = summary(analyse(make_results([make_cell("grpo", 0, [1]), other])), "grpo")
    assert (found.train_seconds, found.peak_memory_gb) == (6.5, 2.0)
    assert found.entropy == (2.5, 0.75)
    assert found.ratio == pytest.approx((0.7, 1.7))
    assert found.outside_bounds == pytest.approx(0.1)
    assert (found.gradient_spikes, found.max_drawdown) == (0, None)


def test_collapses_and_their_first_signs(make_results, make_cell):
    fallen = {
        "step": list(range(12)),
        "reward": [0.4] * 5 + [0.0] * 7,
        "gbpo/outside_bounds": [0.0] * 3 + [0.5] * 9,
        "grad_norm": [1.0] * 9 + [99.0] * 3,
        **dict.fromkeys(("eval_reward", "entropy", "gbpo/ratio_p01", "gbpo/ratio_p99", "num_tokens", "elapsed")),
    }
    fallen = {name: column or [None] * 12 for name, column in fallen.items()}
    warned = fallen | {"reward": [0.4] * 12, "gbpo/outside_bounds": [0.1] * 12}
    made = [make_cell("grpo", seed, [1], series=logs) for seed, logs in enumerate([fallen, fallen, warned])]
    made += [make_cell("gbpo", 0, None, status="failed", series=fallen)]
    analysis = analyse(make_results(made))
    found = summary(analysis, "grpo")
    assert (found.collapsed, found.first_signs) == (2, {"ratio": 2})
    assert found.gradient_spikes == 3
    assert found.max_drawdown == pytest.approx(0.8 / 3)
    assert [sign.kind for sign in analysis.signs["grpo-0"]] == ["ratio", "fall", "gradient"]
    assert [sign.kind for sign in analysis.signs["grpo-2"]] == ["gradient"]
    assert [sign.kind for sign in analysis.signs["gbpo-0"]] == ["ratio", "fall", "gradient"]
    assert summary(analysis, "gbpo").collapsed == 0  # failed runs do not count


def test_a_baseline_without_cells(make_results, make_cell):
    analysis = analyse(make_results([make_cell("gbpo", 0, [1])]))
    assert (summary(analysis, "grpo").seeds, analysis.differences) == (0, [])


def test_difference_over_the_grid_and_at_the_best_points(make_results, make_cell):
    small, large = {"epsilon": 0.2}, {"epsilon": 0.5}

    def made(algorithm, seed, setting, correct, validation):
        series = {"eval_reward": [None, None, 0.9, None, None, validation]}
        return make_cell(algorithm, seed, correct, setting, series=series)

    # the test scores would select other points than the validation rewards
    cells = [made("grpo", seed, small, [2, 2 + seed], 0.5) for seed in (0, 1)]  # 4/8 and 5/8
    cells += [made("grpo", seed, large, [4, 4], 0.3) for seed in (0, 1)]  # 8/8
    cells += [made("gbpo", seed, small, [1, 1], 0.2) for seed in (0, 1)]  # 2/8
    cells += [made("gbpo", seed, large, [3, 4], 0.6) for seed in (0, 1)]  # 7/8
    [overall] = analyse(make_results(cells)).overall
    # by seed: (2 + 7 − 4 − 8) / 16 and (2 + 7 − 5 − 8) / 16
    assert overall.grid == paired_difference([9 / 16, 9 / 16], [12 / 16, 13 / 16])
    assert (overall.setting, overall.baseline_setting) == (large, small)
    assert overall.tuned == paired_difference([7 / 8, 7 / 8], [4 / 8, 5 / 8])
    grid, tuned = overall.verdicts
    assert (
        grid
        == "Over the whole grid, no significant difference between gbpo and grpo (2 seeds): -0.219 (-0.616 to 0.178)."
    )
    assert tuned.startswith(
        "Each at its best grid point by validation reward (gbpo at epsilon=0.5, grpo at epsilon=0.2), "
    )

    cells[2] = made(
        "grpo", 0, large, None, 0.3
    )  # without an evaluation, seed 0 is missing in the grid mean but not at the best points
    [overall] = analyse(make_results(cells)).overall
    assert (overall.grid.n, overall.tuned.n) == (1, 2)
    assert "gbpo 0.56, grpo 0.81 (one seed" in overall.verdicts[0]
    assert analyse(make_results(cells[:2] + cells[4:6])).overall == []  # one point
