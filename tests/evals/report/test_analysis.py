"""The numbers of a report from comparisons whose answer is known."""

import pytest

from evals.report.analysis import analyse
from evals.shared.estimates import Interval, mean_interval, paired_difference

GRPO = [[0, 1, 2, 3], [1, 1, 2, 3], [0, 0, 2, 3]]  # means of four samples: 6/16, 7/16, 5/16
GBPO = [[2, 3, 4, 4], [2, 3, 4, 4], [2, 2, 4, 4]]  # 13/16, 13/16, 12/16


@pytest.fixture
def results(make_results, make_cell):
    cells = [make_cell("grpo", seed, correct) for seed, correct in enumerate(GRPO)]
    return make_results(cells + [make_cell("gbpo", seed, correct) for seed, correct in enumerate(GBPO)])


def row(analysis, algorithm, setting=None):
    [found] = [row for row in analysis.rows if (row.algorithm, row.setting) == (algorithm, setting or {})]
    return found


def test_the_final_models(results):
    found = row(analyse(results), "grpo")
    assert (found.seeds, found.failed) == (3, 0)
    assert found.last == mean_interval([6 / 16, 7 / 16, 5 / 16])
    assert found.best == found.last
    assert found.majority == mean_interval([1 / 4, 1 / 4, 1 / 4])  # three of four alone is a majority
    assert found.greedy == mean_interval([3 / 4, 1, 2 / 4])
    # of 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3 the middle half: 1, 1, 1, 2, 2, 2 quarters
    assert found.iqm.estimate == pytest.approx(1.5 / 4)
    assert found.kl_to_start == 0.5


def test_pass_at_powers_of_two(results):
    found = row(analyse(results), "grpo").pass_at
    # of 4 samples 0, 1, 2, 3 right: at k = 2 one is among them with 0, 1 − 3/6, 1 − 1/6, 1
    at_two = {0: 0, 1: 1 / 2, 2: 5 / 6, 3: 1}
    assert found[2] == pytest.approx(sum(at_two[c] for run in GRPO for c in run) / 12)
    assert found[1] == pytest.approx(18 / 48)
    assert found[4] == pytest.approx(9 / 12)
    assert list(found) == [1, 2, 4]


def test_pass_at_a_number_of_samples_that_is_no_power_of_two(make_results, make_cell):
    made = make_cell("grpo", 0, [1, 6])
    made.last.samples = 6
    assert list(row(analyse(make_results([made])), "grpo").pass_at) == [1, 2, 4, 6]


def test_the_verdict_names_the_winner(results):
    [versus] = analyse(results).comparisons
    # differences 7/16, 6/16, 7/16: mean 5/12, standard error 1/48, t of 2 degrees of freedom 4.302653
    assert versus.last == paired_difference([13 / 16, 13 / 16, 12 / 16], [6 / 16, 7 / 16, 5 / 16])
    assert versus.verdict == "gbpo beats grpo by 0.417 (0.327 to 0.506, 3 seeds)"
    assert (versus.best, versus.area) == (versus.last, Interval(0.0, 0.0, 0.0, 3))
    # the middle halves: 1, 1, 1, 2, 2, 2 against 2, 3, 3, 4, 4, 4 quarters
    assert versus.iqm.estimate == pytest.approx((20 - 9) / 6 / 4)
    assert versus.improvement.estimate == 1


def test_the_verdict_when_the_baseline_wins(results):
    results.algorithms.reverse()
    [versus] = analyse(results).comparisons
    assert (versus.algorithm, versus.last.estimate) == ("grpo", pytest.approx(-5 / 12))
    assert versus.verdict == "gbpo beats grpo by 0.417 (0.327 to 0.506, 3 seeds)"


def test_the_verdict_when_the_seeds_do_not_tell(make_results, make_cell):
    made = [make_cell("grpo", seed, [2, 2]) for seed in (0, 1)]
    made += [make_cell("gbpo", 0, [2, 2]), make_cell("gbpo", 1, [2, 3])]
    # differences 0, 1/8: mean 1/16, standard error 1/16, t of 1 degree of freedom 12.7062
    [versus] = analyse(make_results(made)).comparisons
    assert versus.verdict == "2 seeds do not tell gbpo from grpo: 0.062 (-0.732 to 0.857)"


def test_equal_runs_are_not_told_apart(make_results, make_cell):
    made = [make_cell(algorithm, seed, [1, 2]) for algorithm in ("grpo", "gbpo") for seed in (0, 1)]
    [versus] = analyse(make_results(made)).comparisons
    assert versus.verdict == "gbpo and grpo come out equal on each of 2 seeds"


def test_one_seed_claims_no_interval(make_results, make_cell):
    analysis = analyse(make_results([make_cell("grpo", 0, [1, 2]), make_cell("gbpo", 0, [2, 3])]))
    [versus] = analysis.comparisons
    assert versus.verdict == "one seed: gbpo 0.62, grpo 0.38; no interval can be claimed"
    claims = [versus.last, versus.best, versus.iqm, versus.area, versus.improvement]
    for found in analysis.rows:
        claims += [found.last, found.best, found.iqm, found.majority, found.greedy, found.area]
    assert all(claim.low is None and claim.high is None and claim.n == 1 for claim in claims)


def test_only_seeds_that_both_finished_are_compared(make_results, make_cell):
    made = [make_cell("grpo", seed, [1, 2]) for seed in (0, 1, 2)]
    made[0] = make_cell("grpo", 0, None, status="failed", series={"step": []}, reason="killed")
    made += [make_cell("gbpo", 2, [2, 3]), make_cell("gbpo", 1, [1, 3]), make_cell("gbpo", 0, [4, 4])]
    made += [make_cell("gbpo", 3, None, status="missing")]
    analysis = analyse(make_results(made))
    [versus] = analysis.comparisons
    assert versus.last == paired_difference([1 / 2, 5 / 8], [3 / 8, 3 / 8])
    assert versus.improvement.n == 2
    assert (row(analysis, "grpo").seeds, row(analysis, "grpo").failed) == (2, 1)
    assert (row(analysis, "gbpo").seeds, row(analysis, "gbpo").failed) == (3, 0)


def test_points_of_the_grid_stand_apart(make_results, make_cell):
    small, large = {"epsilon": 0.2}, {"epsilon": 0.5}
    made = [make_cell("grpo", seed, [2, 2], small) for seed in (0, 1)]
    made += [make_cell("gbpo", seed, [3, 3], small) for seed in (0, 1)]
    made += [make_cell("grpo", 0, None, large, status="failed"), make_cell("gbpo", 0, [1, 1], large)]
    analysis = analyse(make_results(made))
    assert [(r.setting, r.algorithm) for r in analysis.rows] == [
        (setting, algorithm) for setting in (small, large) for algorithm in ("grpo", "gbpo")
    ]
    [versus] = analysis.comparisons
    assert (versus.setting, versus.last.estimate) == (small, 0.25)
    assert analysis.thresholds == [
        "epsilon=0.2: 0.400, the final validation reward of grpo (mean over 2 seeds)",
        "epsilon=0.5: none, no run of grpo finished with a validation reward",
    ]
    found = row(analysis, "gbpo", large)
    assert (found.reached, found.steps_to_threshold) == (0, None)


def test_nothing_finished(make_results, make_cell):
    bare = {"status": "missing", "train_seconds": None, "peak_memory_gb": None, "series": {"step": []}}
    analysis = analyse(make_results([make_cell(a, 0, None, **bare) for a in ("grpo", "gbpo")]))
    assert (analysis.comparisons, analysis.signs) == ([], {})
    found = row(analysis, "gbpo")
    assert (found.seeds, found.collapsed, found.pass_at, found.first_signs) == (0, 0, {}, {})
    assert {found.last, found.best, found.iqm, found.area, found.max_drawdown, found.entropy, found.ratio} == {None}


def test_a_finished_run_may_lack_everything(make_results, make_cell):
    made = [make_cell(a, 0, None, train_seconds=None) for a in ("grpo", "gbpo")]
    for cell in made:
        cell.series = {}
    analysis = analyse(make_results(made))
    assert (row(analysis, "gbpo").seeds, row(analysis, "gbpo").last, analysis.comparisons) == (1, None, [])


def test_without_checkpoints_there_is_no_best(results):
    for cell in results.cells:
        cell.best = None
    analysis = analyse(results)
    assert row(analysis, "gbpo").best is None
    assert analysis.comparisons[0].best is None


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


def test_what_it_takes_to_the_final_validation_reward_of_the_baseline(make_results, make_cell):
    made = [make_cell("grpo", i, [1], series=validated(*curve)) for i, curve in enumerate([(0.1, 0.3), (0.2, 0.5)])]
    curves = [(0.4, 0.2, 0.2), (0.1, 0.1, 0.45), (0.1, 0.2, 0.3)]
    made += [make_cell("gbpo", i, [1], series=validated(*curve)) for i, curve in enumerate(curves)]
    analysis = analyse(make_results(made))
    assert analysis.thresholds == ["0.400, the final validation reward of grpo (mean over 2 seeds)"]
    gbpo = row(analysis, "gbpo")
    # after 20 and 60 steps, and never: the median seed needs 60
    assert (gbpo.reached, gbpo.steps_to_threshold) == (2, 60)
    assert (gbpo.tokens_to_threshold, gbpo.seconds_to_threshold) == (600, 6)
    # one of two: half did not reach it
    grpo = row(analysis, "grpo")
    assert (grpo.reached, grpo.steps_to_threshold, grpo.tokens_to_threshold) == (1, None, None)
    # (0.1 + 0.3) / 2, (0.2 + 0.5) / 2
    assert grpo.area.estimate == pytest.approx((0.2 + 0.35) / 2)


def test_behaviour_of_the_training(make_results, make_cell):
    other = make_cell("grpo", 1, [1], train_seconds=8.0, peak_memory_gb=2.5)
    other.series["entropy"] = [3.0, None, None, None, 0.5, None]
    other.series["gbpo/ratio_p99"] = [2.0, 1.0, None, 1.0, 1.0, None]
    found = row(analyse(make_results([make_cell("grpo", 0, [1]), other])), "grpo")
    assert (found.train_seconds, found.peak_memory_gb) == (6.5, 2.0)
    assert found.entropy == (2.5, 0.75)
    assert found.ratio == pytest.approx((0.7, 1.7))
    assert found.outside_bounds == pytest.approx(0.1)
    assert (found.gradient_spikes, found.max_drawdown) == (0, None)


def test_collapses_and_what_came_first(make_results, make_cell):
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
    found = row(analysis, "grpo")
    assert (found.collapsed, found.first_signs) == (2, {"ratio": 2})
    assert found.gradient_spikes == 3
    assert found.max_drawdown == pytest.approx(0.8 / 3)
    assert [sign.kind for sign in analysis.signs["grpo-0"]] == ["ratio", "fall", "gradient"]
    assert [sign.kind for sign in analysis.signs["grpo-2"]] == ["gradient"]
    assert [sign.kind for sign in analysis.signs["gbpo-0"]] == ["ratio", "fall", "gradient"]
    assert row(analysis, "gbpo").collapsed == 0  # over finished seeds; the failed one is counted as failed


def test_baseline_that_no_cell_has(make_results, make_cell):
    analysis = analyse(make_results([make_cell("gbpo", 0, [1])]))
    assert (row(analysis, "grpo").seeds, analysis.comparisons) == (0, [])


def test_over_the_whole_grid_and_each_at_its_best(make_results, make_cell):
    small, large = {"epsilon": 0.2}, {"epsilon": 0.5}

    def made(algorithm, seed, setting, correct, validation):
        series = {"eval_reward": [None, None, 0.9, None, None, validation]}
        return make_cell(algorithm, seed, correct, setting, series=series)

    # the test scores alone would choose other points: validation decides
    cells = [made("grpo", seed, small, [2, 2 + seed], 0.5) for seed in (0, 1)]  # 4/8 and 5/8
    cells += [made("grpo", seed, large, [4, 4], 0.3) for seed in (0, 1)]  # 8/8
    cells += [made("gbpo", seed, small, [1, 1], 0.2) for seed in (0, 1)]  # 2/8
    cells += [made("gbpo", seed, large, [3, 4], 0.6) for seed in (0, 1)]  # 7/8
    [held] = analyse(make_results(cells)).overall
    # by seed: (2 + 7 − 4 − 8) / 16 and (2 + 7 − 5 − 8) / 16
    assert held.grid == paired_difference([9 / 16, 9 / 16], [12 / 16, 13 / 16])
    assert (held.setting, held.baseline_setting) == (large, small)
    assert held.tuned == paired_difference([7 / 8, 7 / 8], [4 / 8, 5 / 8])
    grid, tuned = held.verdicts
    assert grid == "Over the whole grid, 2 seeds do not tell gbpo from grpo: -0.219 (-0.616 to 0.178)."
    assert tuned.startswith("Each at its own best point by validation (gbpo at epsilon=0.5, grpo at epsilon=0.2), ")

    cells[2] = made(
        "grpo", 0, large, None, 0.3
    )  # not evaluated: seed 0 has no number there, but has at the best points
    [held] = analyse(make_results(cells)).overall
    assert (held.grid.n, held.tuned.n) == (1, 2)
    assert "one seed: gbpo 0.56, grpo 0.81" in held.verdicts[0]
    assert analyse(make_results(cells[:2] + cells[4:6])).overall == []  # one point
