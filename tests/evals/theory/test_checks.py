"""The theorems hold for `gbpo.core`, and a mutated core fails the checks."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

import gbpo.core
from evals.theory import checks, command, independent, problem, run_checks
from evals.theory.decision_processes import MDPs, random_mdps

FEW = 16  # decision processes, two of each kind


def failed(results):
    return {result.check for result in results.results if not result.passed}


# ---------------------------------------------------------------------------------------------------------------------
# mutants
# ---------------------------------------------------------------------------------------------------------------------

OPTIMUM = ["optimum, value", "optimum, ratios"]
IMPROVEMENT = ["improvement, η(π*) − η(π0) = ε·B"]
OTHER_BOUNDS = ["other bounds, value", "other bounds, policy", "other bounds, improvement"]
OTHER_BOUNDS += ["other bounds, between 0 and 1"]
# mutant: (file, original text, mutated text, checks that must fail)
MUTANTS = {
    "sign flipped": ("targets.py", "torch.sign(centred) + 1", "1 - torch.sign(centred)", [*OPTIMUM, "PPO, gradient"]),
    "sigmoid flipped": (
        "targets.py",
        "torch.sigmoid(centred / temperature)",
        "torch.sigmoid(-centred / temperature)",
        ["optimum, regularised", "optimum, regularised value", "improvement, π* is a policy"],
    ),
    "order flipped": (
        "targets.py",
        "exact.unsqueeze(-2) > exact.unsqueeze(-1)",
        "exact.unsqueeze(-2) < exact.unsqueeze(-1)",
        [*OPTIMUM, *IMPROVEMENT, "improvement, ≥ 0", "lower bound, tight at π*", "cross-entropy method"],
    ),
    "bound widened": (
        "targets.py",
        "(epsilon_low + epsilon_high) * lift",
        "(epsilon_low + 1.001 * epsilon_high) * lift",
        [*OPTIMUM, "optimum, published median", *IMPROVEMENT, "improvement, π* is a policy", "PPO, overshoot_slope 0"],
    ),
    "ties at one half": (
        "targets.py",
        "lift = ((lifts - better) / equal.clamp(min=1)).clamp(0.0, 1.0)",
        "lift = (torch.sign(lifts - better - equal / 2) + 1) / 2",
        [*OPTIMUM, "improvement, π* is a policy", "cross-entropy method"],
    ),
    "ties not shared": ("targets.py", "/ equal.clamp(min=1)", "/ 1", [*OPTIMUM, "cross-entropy method"]),
    "median for the quantile": (
        "targets.py",
        "* (epsilon_low / (epsilon_low + epsilon_high))  # m",
        "* 0.5  # m",
        [*OPTIMUM, *IMPROVEMENT, "cross-entropy method", "optimum, regularised"],
    ),
    "mean for median": ("targets.py", "nanquantile(0.5, ", "nanmean(", ["optimum, published median"]),
    "mean off": (
        "targets.py",
        "groups = groups - groups.nanmean",
        "groups = groups + groups.nanmean",
        ["PPO, gradient", "PPO, overshoot_slope 0"],
    ),
    "lower median": (
        "targets.py",
        "nanquantile(0.5, dim=-1, keepdim=True)",
        "nanmedian(-1, keepdim=True).values",
        ["optimum, published median"],
    ),
    "root off": ("targets.py", "keepdim=True) > lifts", "keepdim=True) > 1.001 * lifts", ["optimum, regularised"]),
    "twice the temperature": (
        "targets.py",
        "pivot_value) / temperature",
        "pivot_value) / (2 * temperature)",
        [
            "optimum, regularised",
            "optimum, regularised value",
        ],
    ),
    "width inverted": (
        "targets.py",
        "(-exponent * probable).exp()",
        "(exponent * probable).exp()",
        [*OTHER_BOUNDS, "DPPO, gradient"],
    ),
    "same width for every exponent": (
        "targets.py",
        "(-exponent * probable).exp()",
        "(-probable).exp()",
        OTHER_BOUNDS,
    ),
    "target itself widened": (
        "targets.py",
        "1 + (target - 1) * bound_width(old_log_probs, exponent=exponent)",
        "target * bound_width(old_log_probs, exponent=exponent)",
        [*OTHER_BOUNDS, "DPPO, gradient"],
    ),
    "width of 0.99": (
        "targets.py",
        "1 + (target - 1) * bound_width",
        "1 + 0.99 * (target - 1) * bound_width",
        [*OTHER_BOUNDS, "DPPO, gradient"],
    ),
    "exponent 1 − q": (
        "targets.py",
        "bound_width(old_log_probs, exponent=exponent)\n",
        "bound_width(old_log_probs, exponent=1 - exponent)\n",
        [*OTHER_BOUNDS, "DPPO, gradient"],
    ),
    "target below 0": ("targets.py", "widened.clamp(min=0.0)", "widened", ["other bounds, between 0 and 1"]),
    "target above 1 / π0": (
        "targets.py",
        "torch.minimum(widened.clamp(min=0.0), bound_width(old_log_probs, exponent=1.0))",
        "widened.clamp(min=0.0)",
        ["other bounds, between 0 and 1"],
    ),
    "target above 1 / π0^q cut": (
        "targets.py",
        "bound_width(old_log_probs, exponent=1.0)",
        "bound_width(old_log_probs, exponent=exponent)",
        ["other bounds, between 0 and 1"],
    ),
    "median loss to the mean": (
        "losses.py",
        "return smooth - excess * (epsilon_low / (epsilon_low + epsilon_high))",
        "return excess.square()",
        [*OPTIMUM, "improvement, π* is a policy", "median loss, quantile", "median loss, τ → 0", "median loss, τ > 0"],
    ),
    "median loss without the bounds": (
        "losses.py",
        "excess * (epsilon_low / (epsilon_low + epsilon_high))",
        "excess * 0.5",
        [*OPTIMUM, "median loss, quantile", "median loss, τ → 0", "median loss, τ > 0"],
    ),
    "median loss at another temperature": (
        "losses.py",
        "1 / temperature",
        "1.01 / temperature",
        ["median loss, τ > 0"],
    ),
    "slope towards the target": (
        "losses.py",
        "overshoot_slope * distance, distance)",
        "overshoot_slope * distance, 0.999 * distance)",
        ["lower bound, holds", "lower bound, its slack", "PPO, gradient", "PPO, overshoot_slope 0"],
    ),
    "slope past the target": (
        "losses.py",
        "overshoot_slope * distance, distance)",
        "0.999 * overshoot_slope * distance, distance)",
        ["lower bound, its slack", "PPO, past the target"],
    ),
    "overshoot on the wrong side": ("losses.py", "(target - 1) > 0", "(target - 1) < 0", ["PPO, overshoot_slope 0"]),
    "slope ignored": (
        "losses.py",
        "overshoot_slope * distance, distance)",
        "distance, distance)",
        ["PPO, overshoot_slope 0", "PPO, overshoot_slope 0.3", "DPPO, gradient"],
    ),
    "slope squared": (
        "losses.py",
        "overshoot_slope * distance, distance)",
        "overshoot_slope**2 * distance, distance)",
        ["PPO, overshoot_slope 0.3"],
    ),
    "signed weight": (
        "losses.py",
        "at_least_float32(advantages.detach()).abs()",
        "at_least_float32(advantages.detach())",
        ["lower bound, holds", "lower bound, its slack", "PPO, gradient"],
    ),
    "squared error": ("losses.py", "error.abs()", "error.square()", ["lower bound, holds", "PPO, gradient"]),
    "log-ratio for ratio": (
        "losses.py",
        "max_log_ratio).exp()",
        "max_log_ratio) + 1",
        [
            "lower bound, tight at π*",
            "lower bound, its slack",
            "PPO, gradient",
        ],
    ),
}


def install(monkeypatch, file, text, replacement):
    """Let the checks call a mutated core. `text` must occur exactly once in `file`."""
    source = (Path(gbpo.core.__file__).parent / file).read_text()
    assert source.count(text) == 1
    mutant = {"__name__": "gbpo.core.mutant", "__package__": "gbpo.core"}
    exec(source.replace(text, replacement), mutant)
    for module in (checks, problem):
        for name in set(gbpo.core.__all__) & mutant.keys() & vars(module).keys():
            monkeypatch.setattr(module, name, mutant[name])


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the log of negative ratios
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutated_core_fails_its_checks(name, monkeypatch):
    file, text, replacement, failing = MUTANTS[name]
    install(monkeypatch, file, text, replacement)
    assert set(failing) <= failed(run_checks.run(FEW, seed=0))


def test_a_mutant_fails_only_the_checks_that_it_affects(monkeypatch):
    install(monkeypatch, *MUTANTS["overshoot on the wrong side"][:3])
    assert failed(run_checks.run(FEW, seed=0)) == {
        "PPO, overshoot_slope 0",
        "PPO, overshoot_slope 0.3",
        "DPPO, gradient",
    }


# ---------------------------------------------------------------------------------------------------------------------
# the unchanged core
# ---------------------------------------------------------------------------------------------------------------------


def test_a_few_decision_processes_pass_every_check(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--mdps", "40", "--seed", "3", "--json", str(tmp_path / "theory.json")])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert f"all {len(run_checks.CHECKS)} checks pass: 40 MDPs, seed 3" in printed
    written = json.loads((tmp_path / "theory.json").read_text())
    assert [result["check"] for result in written["results"]] == list(run_checks.CHECKS)
    for result in written["results"]:
        assert f"{result['check']:<32} {result['cases']:>7} {result['worst']:>7.1e}" in printed
        assert result["passed"] and result["cases"] > 0 and result["worst"] <= result["tolerance"]
    for name, quantiles in written["slack"].items():
        assert name in printed
        assert quantiles == sorted(quantiles) and quantiles[0] >= -1e-9 and quantiles[-1] > 0.01


def test_the_results_depend_only_on_the_seed():
    first, again, other = (run_checks.run(8, seed) for seed in (1, 1, 2))
    assert (first.results, first.slack) == (again.results, again.slack)
    assert first.slack != other.slack


def test_a_failed_check_ends_with_status_1_and_is_named(monkeypatch, capsys):
    install(monkeypatch, *MUTANTS["overshoot on the wrong side"][:3])
    with pytest.raises(SystemExit) as ended:
        command.main(["--mdps", "8"])
    assert ended.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line[:32].rstrip() for line in lines if "  FAIL  " in line] == [
        "DPPO, gradient",
        "PPO, overshoot_slope 0",
        "PPO, overshoot_slope 0.3",
    ]
    assert lines[-1].startswith(f"3 of {len(run_checks.CHECKS)} checks FAILED")


def test_an_error_that_is_not_finite_fails_and_is_valid_json():
    for value in (math.nan, math.inf):
        result = run_checks._result("PPO, gradient", np.array([0.0, value]))
        assert (result.worst, result.passed) == (None, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mdps", "7"], "--mdps 7 is too few to include all 8 kinds of problem. Write 8 or more."),
        (["--mdps", "many"], "argument --mdps: invalid int value: 'many'"),
        (["--seed", "-1"], "--seed must be at least 0, got -1."),
        (["--json", "nowhere/theory.json"], "--json 'nowhere/theory.json' cannot be written"),
        (["--json", "."], "--json '.' cannot be written"),
        (["--mpds", "8"], "unknown option --mpds. Did you mean --mdps?"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith(f"gbpo theory: error: {message}")


# ---------------------------------------------------------------------------------------------------------------------
# by hand
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def by_hand():
    """γ = ½. In state 0, action 0 has reward 1 and stays, action 1 has reward 0 and leaves. State 1 has reward 2."""
    return MDPs(
        rewards=np.array([[[1.0, 0.0], [2.0, 2.0]]]),
        transitions=np.array([[[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]]]),
        start=np.array([[1.0, 0.0]]),
        discount=0.5,
    )


def make_problem(mdps, old, low, high):
    bounds = {"epsilon_low": low, "epsilon_high": high}
    return problem.Problem(mdps, np.array(old), bounds, uniform=False, duplicates=False)


def test_a_process_solved_by_hand(by_hand):
    old = np.full((1, 2, 2), 0.5)
    # V2 = 2 / (1 - ½) = 4;  V1 = ½ (1 + V1/2) + ½ (V2/2) = 3/2 + V1/4 = 2;  Q1 = (1 + 2/2, 4/2) = (2, 2): tied
    assert by_hand.values(old) == pytest.approx(np.array([[2.0, 4.0]]), abs=1e-15)
    assert by_hand.action_values(old).tolist() == [[[2.0, 2.0], [4.0, 4.0]]]
    assert by_hand.returns(old) == pytest.approx(2.0, abs=1e-15)
    # d1 = 1 + ½ · ½ d1 = 4/3;  d2 = 2 - 4/3, since d sums to 1 / (1 - γ)
    assert by_hand.occupancy(old) == pytest.approx(np.array([[4 / 3, 2 / 3]]), abs=1e-15)
    # always staying has the return 1 / (1 - ½) = 2, leaving at once ½ · 4 = 2
    assert by_hand.optimal_returns() == pytest.approx(2.0, abs=1e-15)


def test_an_improvement_computed_by_hand(by_hand):
    # staying has reward 0: V1 = ½ (V1/2) + ½ (4/2) = 4/3;  Q1 = (2/3, 2), A1 = (-2/3, 2/3)
    mdps = MDPs(np.array([[[0.0, 0.0], [2.0, 2.0]]]), by_hand.transitions, by_hand.start, 0.5)
    half = make_problem(mdps, np.full((1, 2, 2), 0.5), 0.5, 0.5)
    ratio = half.optimal_ratio(mdps.action_values(half.old))
    assert ratio == pytest.approx(np.array([[[0.5, 1.5], [1.0, 1.0]]]), abs=1e-15)
    # π* leaves with probability ¾: V1 = ¼ (V1/2) + ¾ · 2, so η = 3/2 · 8/7 = 12/7, and 12/7 - 4/3 = 8/21.
    # ε B: d1 = 1 + ½ · ¼ d1 = 8/7, |Ã| = 2/3 (on average, for any median between 2/3 and 2): ½ · 8/7 · 2/3 = 8/21
    assert mdps.returns(half.old * ratio) == pytest.approx(12 / 7, abs=1e-15)
    assert checks._epsilon_b(half, mdps.action_values(half.old), half.old * ratio) == pytest.approx(8 / 21, abs=1e-15)
    # at π = π0: d_0 of the first state is 4/3, the loss there |A| |ρ - ρ*| = 2/3 · ½ = 1/3: E[l] = 4/9.
    # δ = -(d_0 - d_*) g_*, g_* = ¼ · -2/3 + ¾ · 2/3 = 1/3, so δ = -(4/3 - 8/7) / 3 = -4/63.
    # Bound 4/3 + 8/21 - 4/9 + 4/63 = 4/3 = η(π0): no slack.
    # Worst case: 2 · ½ · (1 + ½) / ¼ · 2/3 · TV, TV = ¼: 1
    found = checks.lower_bound(half, np.ones((1, 2, 2)))
    assert found.delta == pytest.approx(-4 / 63, abs=1e-15)
    assert found.slack == pytest.approx(0.0, abs=1e-15)
    assert found.worst_delta == pytest.approx(1.0, abs=1e-15)


def test_weighted_ratios_at_hand_computed_points():
    # bounds 0.8 and 1.3: probability 0.2 / 0.5 = 0.4 is raised. The best action has probability 0.3 and ratio 1.3, the
    # worst has ratio 0.8. The two tied actions share the rest: (1 - 0.39 - 0.16) / 0.5 = 0.9
    q, old = np.array([2.0, 1.0, 0.0, 1.0]), np.array([0.3, 0.1, 0.2, 0.4])
    bounds = {"epsilon_low": 0.2, "epsilon_high": 0.3}
    assert problem.hard_baseline(q, old, bounds) == 1.0
    assert problem.weighted_ratio(q, old, bounds) == pytest.approx([1.3, 0.9, 0.8, 0.9], abs=1e-15)
    policy = independent.linear_programme(q, 0.8 * old, 1.3 * old)
    assert policy[[0, 2]] == pytest.approx([0.39, 0.16], abs=1e-12)
    assert policy[[1, 3]].sum() == pytest.approx(0.45, abs=1e-12)
    # at τ = 1/ln 3 with two equally likely actions and symmetric bounds, the baseline is halfway: σ(± ln 3) = 3/4, 1/4
    q, old, even = np.array([5.0, 3.0]), np.array([0.5, 0.5]), {"epsilon_low": 0.2, "epsilon_high": 0.2}
    assert problem.smooth_baseline(q, old, even, 1 / math.log(3)) == pytest.approx(4.0, abs=1e-12)
    assert independent.convex_solver(q, old, 0.5, 1 / math.log(3)) == pytest.approx([0.75, 0.25], abs=1e-6)


def test_the_median_under_bounds_on_the_probability_counts_every_action_once():
    # π0 = 0.7, 0.2, 0.1 and Q = 3, 2, 1. Under π0 the median is 3: ratios within 1 ± 0.1 only move the first action's
    # probability against the others. With |π - π0| ≤ 0.05 the median over actions is 2: π* = 0.75, 0.2, 0.05.
    q, old = np.array([3.0, 2.0, 1.0]), np.array([0.7, 0.2, 0.1])
    assert problem.hard_baseline(q, old, {"epsilon_low": 0.1, "epsilon_high": 0.1}) == 3.0
    bounds = {"epsilon_low": 0.05, "epsilon_high": 0.05}
    target = problem.weighted_ratio(q, np.full(3, 1 / 3), bounds)
    ratio = problem.call_core(gbpo.core.widened_target_ratio, target, np.log(old), exponent=1.0)
    assert old * ratio == pytest.approx([0.75, 0.2, 0.05], abs=1e-12)
    assert independent.linear_programme(q, old - 0.05, old + 0.05) == pytest.approx([0.75, 0.2, 0.05], abs=1e-12)


def test_quantiles_at_hand_computed_points():
    # cumulative probabilities 0.25, 0.5, 1 at the values 1, 2, 7: any number from 2 to 7 is a median
    q, old = np.array([7.0, 1.0, 2.0]), np.array([0.5, 0.25, 0.25])
    assert [float(end[0]) for end in independent.quantiles(q, old, lift=0.5)] == [2.0, 7.0]
    assert [float(end[0]) for end in independent.quantiles(q, old, lift=0.4)] == [7.0, 7.0]
    assert [float(end[0]) for end in independent.quantiles(q, old, lift=0.8)] == [1.0, 1.0]


def test_only_duplicate_actions_have_tied_values():
    for seed in range(20):
        for duplicates in (True, False):
            mdps = random_mdps(np.random.default_rng(seed), 10, duplicates=duplicates)
            q = mdps.action_values(np.full(mdps.rewards.shape, 1 / mdps.rewards.shape[-1]))
            ascending = np.sort(q, axis=-1)
            assert ((ascending[..., 1:] == ascending[..., :-1]).any(-1)).all() == duplicates
            assert mdps.transitions.sum(-1) == pytest.approx(np.ones(q.shape), abs=1e-12)
