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
    # 0.75 ± t · 0.25 / √3 = 0.75 ± 4.302653 · 0.144338 would end at 1.371, above the largest share
    assert (found.greedy.estimate, found.greedy.low, found.greedy.high) == pytest.approx((0.75, 0.1289656, 1.0))
    # middle half of 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3 quarters: 1, 1, 1, 2, 2, 2
    assert found.iqm.estimate == pytest.approx(1.5 / 4)
    assert found.kl_to_start == 0.5


def test_pass_at_powers_of_two(results):
    found = summary(analyse(results), "grpo").pass_at
    # with 0, 1, 2, 3 of 4 samples correct, pass@2 is 0, 1 − 3/6, 1 − 1/6, 1
    at_two = {0: 0, 1: 1 / 2, 2: 5 / 6, 3: 1}
    assert found[2] == mean_interval([sum(at_two[c] for c in run) / 4 for run in GRPO])
    assert found[1].estimate == pytest.approx(18 / 48)
    # the three runs have 3, 4 and 2 questions of 4 with a correct sample; the interval 0.75 ± 0.62 is cut at 1
    assert (found[4].estimate, found[4].high) == (pytest.approx(9 / 12), 1)
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
        "epsilon=0.2: a validation reward of 0.380",  # 0.2 + 0.9 · (0.4 − 0.2)
        "epsilon=0.5: a validation reward of 0.380",
    ]
    found = summary(analysis, "gbpo", large)
    assert (found.reached, found.steps_to_threshold) == (1, 40)


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
    # the first validations have the mean (0.1 + 0.2 + 0.4 + 0.1 + 0.1) / 5 = 0.18, and grpo ends higher, at 0.4
    # 0.18 + 0.9 · (0.4 − 0.18) = 0.378
    assert analysis.thresholds == ["a validation reward of 0.378"]
    gbpo = summary(analysis, "gbpo")
    # the seeds reach it after 20 steps, after 60 steps and never, so the median is 60
    assert (gbpo.reached, gbpo.steps_to_threshold) == (2, 60)
    assert (gbpo.tokens_to_threshold, gbpo.seconds_to_threshold) == (600, 6)
    # one of two seeds reached it
    grpo = summary(analysis, "grpo")
    assert (grpo.reached, grpo.steps_to_threshold, grpo.tokens_to_threshold) == (1, None, None)
    # (0.1 + 0.3) / 2, (0.2 + 0.5) / 2
    assert grpo.area.estimate == pytest.approx((0.2 + 0.35) / 2)


def test_no_threshold_if_no_algorithm_improves(make_results, make_cell):
    cells = [make_cell(a, 0, [1], series=validated(0.4, 0.5, last)) for a, last in (("grpo", 0.3), ("gbpo", 0.4))]
    analysis = analyse(make_results(cells))
    assert analysis.thresholds == ["none, because no algorithm ended above its first validation reward"]
    assert {(s.reached, s.steps_to_threshold, s.generations_to_threshold) for s in analysis.summaries} == {
        (0, None, None)
    }


def test_generations_and_completion_tokens_to_the_threshold(make_results, make_cell):
    made = make_cell("grpo", 0, [1], series=validated(0.1, 0.2, 0.9))
    made.updates_per_generation, made.completions_per_generation = 16.0, 10
    # mean lengths of the logs at the steps 20, 40 and 60
    made.series["completions/mean_length"] = [5.0, None, 7.0, None, 9.0, None]
    found = summary(analyse(make_results([made])), "grpo")
    # the threshold 0.82 is reached at step 60, in the 4th generation (60 / 16 = 3.75)
    # 4 generations last 64 steps: 20 steps of length 5, 20 of 7 and 24 of 9 are 456, times 10 / 16
    assert (found.steps_to_threshold, found.generations_to_threshold) == (60, 4)
    assert found.completion_tokens_to_threshold == 456 * 10 / 16
    made.updates_per_generation = 0.5  # two generations per step: (20 · 5 + 20 · 7 + 20 · 9) · 2 · 10
    found = summary(analyse(make_results([made])), "grpo")
    assert (found.generations_to_threshold, found.completion_tokens_to_threshold) == (120, 420 * 20)


def test_the_validation_curve_is_that_of_the_test_reward_if_it_was_logged(make_results, make_cell):
    cells = [make_cell(algorithm, 0, [1]) for algorithm in ("grpo", "gbpo")]
    cells[0].series["eval_rewards/exact_match/mean"] = [None, None, 0.6, None, None, 0.8]
    cells[1].series["eval_rewards/exact_match/mean"] = [None, None, 0.6, None, None, 0.6]
    results = make_results(cells)
    assert summary(analyse(results), "grpo").area.estimate == pytest.approx(0.3)  # of eval_reward: 0.2 and 0.4
    results.evaluation["reward_funcs"] = ["rewards.exact_match"]
    analysis = analyse(results)
    assert summary(analysis, "grpo").area.estimate == pytest.approx(0.7)
    assert analysis.differences[0].area.estimate == pytest.approx(-0.1)
    assert analysis.thresholds == ["a validation reward of 0.780"]  # 0.6 + 0.9 · (0.8 − 0.6)


def test_the_best_grid_point_is_chosen_by_the_reward_of_the_test(make_results, make_cell):
    """The agreement with a majority vote is highest where the run has collapsed."""
    cells = []
    for algorithm in ("grpo", "gbpo"):
        for epsilon, vote, right in ((0.2, 0.5, 0.6), (0.5, 1.0, 0.1)):
            curves = {"eval_reward": vote, "eval_rewards/exact_match/mean": right}
            series = {name: [None, None, 0.3, None, None, last] for name, last in curves.items()}
            cells.append(make_cell(algorithm, 0, [1, 2], {"epsilon": epsilon}, series=series))
    results = make_results(cells)
    results.evaluation["reward_funcs"] = ["exact_match"]
    [overall] = analyse(results).overall
    assert overall.setting == overall.baseline_setting == {"epsilon": 0.2}


def test_rewards_beyond_a_share_are_not_cut(make_results, make_cell):
    cells = [make_cell("grpo", seed, [2, 4 - 3 * seed]) for seed in (0, 1)]
    # scores 3/4 and 3/8: mean 9/16, standard error 3/16, t of 1 degree of freedom 12.7062
    assert summary(analyse(make_results(cells)), "grpo").last.ends == (0, 1)
    # areas 1/2 and 1/4: mean 3/8, standard error 1/8
    cells[0].series["eval_reward"] = [None, None, 0.5, None, None, 0.5]
    cells[1].series["eval_reward"] = [None, None, 0.25, None, None, 0.25]
    assert summary(analyse(make_results(cells)), "grpo").area.ends == (0, 1)
    cells[1].series["eval_reward"] = [None, None, -0.75, None, None, 1.25]
    assert summary(analyse(make_results(cells)), "grpo").area.high == pytest.approx(3 / 8 + 12.7062 / 8, rel=1e-4)
    cells[0].last.scores = [-0.5, 2.0]
    assert summary(analyse(make_results(cells)), "grpo").last.high == pytest.approx(9 / 16 + 12.7062 * 3 / 16, rel=1e-4)


def test_differences_are_corrected_over_algorithms_and_grid_points(make_results, make_cell):
    """With 2 seeds and differences of d − s and d + s, p is 1 − 2 · arctan(d / s) / π: 0.0318 at d / s = 20.

    Alone it is significant. In a family of four it would have to be at most 0.05/4.
    """
    small, large = {"epsilon": 0.2}, {"epsilon": 0.5}
    cells = []
    for setting in (small, large):
        for seed, shift in enumerate((-0.01, 0.01)):
            cells += [make_cell(name, seed, [1], setting) for name in ("grpo", "gbpo", "gbpo:a=1")]
            for cell, score in zip(cells[-3:], (0.3, 0.3 + shift, 0.3 + 4 * shift), strict=True):
                cell.last.scores = [score]
            cells[-2].last.scores = [0.3 + shift + 0.2 * (setting is small)]
    results = make_results(cells, ["grpo", "gbpo", "gbpo:a=1"])
    first, *others = analyse(results).differences
    assert first.last.p_value == pytest.approx(0.0318, abs=1e-4)
    assert first.p_value == pytest.approx(4 * 0.0318, abs=4e-4)
    assert not first.last.excludes_zero
    assert first.last.high - first.last.estimate == pytest.approx(0.01 * 50.923, abs=1e-4)  # tan(π/2 · (1 − 0.05/4))
    assert [other.p_value for other in others] == [1, 1, 1]

    alone = [cell for cell in cells if cell.algorithm != "gbpo:a=1" and cell.setting == small]
    [difference] = analyse(make_results(alone)).differences
    assert difference.last.excludes_zero
    assert difference.p_value == difference.last.p_value


def test_shared_runs_count_once(make_results, make_cell):
    """Cells that take the same steps share a run, as at two ε with one update per generation."""
    points = [{"epsilon": value} for value in (0.2, 0.5)]
    cells = [make_cell(name, seed, [seed], point) for point in points for name in ("grpo", "gbpo") for seed in (1, 2)]
    exact = [make_cell("gbpo:exact", seed, [seed], point) for point in points for seed in (1, 2)]
    for cell in cells + exact:
        cell.folder = f"{cell.algorithm}-{cell.seed}".replace("gbpo:exact", "grpo")
    for cell in cells:
        if cell.algorithm == "gbpo":
            cell.last.scores = [cell.seed / 4 + 0.2 + cell.seed / 100]
    results = make_results(cells + exact, ["grpo", "gbpo", "gbpo:exact"])
    gbpo, same, gbpo_again, _ = analyse(results).differences
    assert gbpo.p_value == gbpo.last.p_value  # the family has one member
    assert gbpo.last == gbpo_again.last
    assert (same.last, same.p_value) == (Interval(0.0, 0.0, 0.0, 2), None)


def test_entropy_and_pass_at_k_are_compared(make_results, make_cell):
    cells = [make_cell(name, seed, [2, 0]) for name in ("grpo", "gbpo") for seed in (0, 1)]
    for cell, entropy in zip(cells, (1.0, 0.8, 0.5, 0.1), strict=True):
        cell.series["entropy"] = [2.0, None, None, None, entropy, None]
    cells[2].last.correct, cells[3].last.correct = [2, 1], [4, 4]  # pass@4 is 1, and ½ for grpo
    analysis = analyse(make_results(cells))
    [difference] = analysis.differences
    # differences −0.5 and −0.7: mean −0.6, standard error 0.1, t of 1 degree of freedom 12.7062
    assert difference.entropy.estimate == pytest.approx(-0.6)
    assert difference.entropy.high == pytest.approx(-0.6 + 1.27062, rel=1e-4)
    assert (difference.pass_at_k.estimate, difference.pass_at_k.n) == (0.5, 2)
    found = summary(analysis, "gbpo")
    assert (found.first_entropy, found.entropy.estimate, found.entropy.low) == (2, pytest.approx(0.3), 0)


def test_training_behaviour(make_results, make_cell):
    other = make_cell("grpo", 1, [1], train_seconds=8.0, peak_memory_gb=2.5)
    other.series["entropy"] = [3.0, None, None, None, 0.5, None]
    other.series["gbpo/ratio_p99"] = [2.0, 1.0, None, 1.0, 1.0, None]
    found = summary(analyse(make_results([make_cell("grpo", 0, [1]), other])), "grpo")
    assert (found.train_seconds, found.peak_memory_gb) == (6.5, 2.0)
    assert (found.first_entropy, found.entropy.estimate) == (2.5, 0.75)
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


def test_collapses_are_counted_with_the_reward_of_the_test(make_results, make_cell):
    """The runs learn from a majority vote, which rises. The reward of the test has weight 0 and falls in one run."""
    names = ("eval_reward", "entropy", "grad_norm", "gbpo/outside_bounds", "gbpo/ratio_p01", "gbpo/ratio_p99")
    empty = {name: [None] * 12 for name in (*names, "num_tokens", "elapsed")}
    vote = empty | {"step": list(range(12)), "reward": [i / 12 for i in range(12)]}
    wrong, right = (vote | {"rewards/exact_match/mean": [0.4] * 5 + [end] * 7} for end in (0.0, 0.4))
    cells = [make_cell("grpo", seed, [1], series=logs) for seed, logs in enumerate((wrong, right))]
    results = make_results(cells)
    assert summary(analyse(results), "grpo").collapsed == 0  # a file that does not name the reward of the test
    results.evaluation["reward_funcs"] = ["exact_match"]
    found = summary(analyse(results), "grpo")
    assert (found.collapsed, found.first_signs) == (1, {"fall": 1})
    assert found.max_drawdown == pytest.approx(0.2)  # 0.4 → 0 in one run, none in the other


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
    # differences 3/8 and 2/8: the upper end 5/16 + 12.7062 / 16 is above the largest difference of two shares
    assert overall.tuned == paired_difference([7 / 8, 7 / 8], [4 / 8, 5 / 8]).within(-1, 1)
    assert overall.tuned.high == 1
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
