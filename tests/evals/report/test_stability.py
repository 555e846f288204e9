"""Signs of trouble are found at the first log at which they appear."""

import math
import random

import pytest

from evals.report.stability import COLLAPSES, SIGNS, Sign, collapsed, gradient_spikes, max_drawdown, signs
from gbpo.trainer.guards import collapse

HEALTHY = {
    "reward": 0.5,
    "entropy": 1.0,
    "grad_norm": 1.0,
    "gbpo/outside_bounds": 0.05,
    "completions/mean_length": 100.0,
    "frac_reward_zero_std": 0.2,
}


def series(**columns):
    """Logs of a healthy run at steps 10, 20, …, with some columns replaced."""
    size = len(next(iter(columns.values())))
    names = {
        "length": "completions/mean_length",
        "same_reward": "frac_reward_zero_std",
        "outside": "gbpo/outside_bounds",
    }
    replaced = {names.get(name, name): values for name, values in columns.items()}
    return {"step": [10 * (i + 1) for i in range(size)]} | {n: [v] * size for n, v in HEALTHY.items()} | replaced


RISE = [i / 20 for i in range(20)]
CASES = {
    "healthy": (series(reward=RISE), []),
    "nothing logged": ({}, []),
    "steps alone": ({"step": [10, 20]}, []),
    # after 3, 10 and 3 logs in a row
    "ungraded": (series(reward=[0.5, None, None, None, None]), [("ungraded", 40)]),
    "no signal": (series(same_reward=[0.5] + [1.0] * 12), [("signal", 110)]),
    "no signal in nine": (series(same_reward=[1.0] * 9 + [0.9] + [1.0] * 9), []),
    "entropy gone": (series(entropy=[1.0, 0.04, 0.04, 0.04, 0.5]), [("entropy", 40)]),
    "length gone": (series(length=[100.0, 4.0, 4.0, 6.0, 4.0, 4.0, 4.0]), [("length", 70)]),
    # means of five logs: 1 up to log 15, then 0.8, 0.6, 0.4
    "rose and lost it": (series(reward=[0.0] * 5 + [1.0] * 10 + [0.0] * 10), [("drawdown", 180), ("fall", 180)]),
    # 0.4, then 0.32, 0.24 and at log 8 0.16; the noise is 0.4 / 7 there
    "fell from its start": (series(reward=[0.4] * 5 + [0.0] * 7), [("fall", 80)]),
    # the training reward is low from the first log on, but the starting model was better
    "fell before its first log": (
        series(reward=[0.02] * 8, eval_reward=[0.25, None, 0.02, None, 0.02, 0.02, None, 0.02]),
        [("fall", 50)],
    ),
    "one low validation": (series(reward=[0.5] * 6, eval_reward=[0.25, 0.1, 0.25, 0.1, 0.13, 0.1]), []),
    "negative rewards that rise": (series(reward=[-3.0] * 6, eval_reward=[-3.0, -2.5, -2.0, -1.0, -0.5, 0.0]), []),
    "kept half": (series(reward=[0.4] * 5 + [0.2] * 20), []),
    "noise alone": (series(reward=[0.02, 0.0, 0.05, 0.01, 0.04, 0.0, 0.03, 0.0, 0.01, 0.0, 0.0, 0.04]), []),
    "ratios": (series(outside=[0.1, 0.2, 0.21, 0.3]), [("ratio", 30)]),
    "gradient": (series(grad_norm=[1.0, 1.0, 1.0, 2.0, 1.0, 10.0, 10.1, 50.0]), [("gradient", 70)]),
    "in their order": (
        series(outside=[0.0] * 6 + [0.5] * 6, grad_norm=[1.0] * 5 + [99.0] * 7, reward=[0.4] * 5 + [0.0] * 7),
        [("gradient", 60), ("ratio", 70), ("fall", 80)],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_sign_is_found_at_its_first_log(case):
    logs, expected = CASES[case]
    assert [(sign.kind, sign.step) for sign in signs(logs)] == expected


SIGN_OF = {"grad_norm": "gradient", "gbpo/outside_bounds": "ratio", "entropy": "entropy", "reward": "fall"}


@pytest.mark.parametrize("missing", SIGN_OF)
def test_a_missing_column_removes_only_its_own_sign(missing):
    logs = series(
        grad_norm=[1.0] * 5 + [99.0] * 7,
        outside=[0.5] * 12,
        entropy=[1.0] + [0.01] * 11,
        reward=[0.4] * 5 + [0.0] * 7,
    )
    assert {sign.kind for sign in signs(logs)} == set(SIGN_OF.values())
    del logs[missing]
    if missing == "reward":  # a generation without a reward counts as ungraded
        del logs["completions/mean_length"], logs["frac_reward_zero_std"]
    assert {sign.kind for sign in signs(logs)} == set(SIGN_OF.values()) - {SIGN_OF[missing]}


def random_series(seed):
    """Logs of random walks, with validations and logs without a generation in between."""
    rng = random.Random(seed)
    rows, reward, entropy = [], rng.random(), 1.0
    for step in range(60):
        reward += rng.gauss(0, 0.1)
        entropy *= rng.choice([0.5, 0.9, 1.1])
        row = {"step": step, "entropy": entropy}
        if rng.random() < 0.8:
            same_reward = 1.0 if step > 15 and seed % 3 == 0 and rng.random() < 0.95 else 0.5
            graded = rng.random() < (0.3 if seed % 4 == 0 else 0.95)
            row |= {"reward": reward if graded else None, "frac_reward_zero_std": same_reward}
            row["completions/mean_length"] = 100 * entropy ** rng.random()
        rows.append(row)
        if step % 10 == 0:
            rows.append({"step": step, "eval_reward": reward})
    return rows, {name: [row.get(name) for row in rows] for name in ("eval_reward", *HEALTHY, "step")}


def test_signs_match_the_collapse_watch_at_every_log():
    kinds = set()
    for seed in range(40):
        rows, logs = random_series(seed)
        expected = {}
        for n in range(1, len(rows) + 1):
            for kind, line in collapse.find(rows[:n]).items():
                expected.setdefault(kind, Sign(rows[n - 1]["step"], kind, line))
        assert {sign.kind: sign for sign in signs(logs) if sign.kind != "fall"} == expected
        kinds |= expected.keys()
    assert kinds == {"ungraded", "signal", "entropy", "length", "drawdown"}


def test_the_sentences_contain_the_numbers():
    lines = {sign.kind: sign.line for logs, _ in CASES.values() for sign in signs(logs)}
    assert lines["fall"] == "The mean reward of 5 logs fell from 0.4 at its best to 0.16."
    assert lines["ratio"] == "50% of the tokens have a ratio outside the bounds, more than 20%."
    assert lines["gradient"] == "The gradient norm is 99 after a median of 1."
    assert "from 1 to 0.04" in lines["entropy"]


@pytest.mark.parametrize(
    ("case", "answer"),
    [
        ("healthy", False),
        ("nothing logged", False),
        ("ungraded", True),
        ("no signal", False),
        ("entropy gone", False),
        ("rose and lost it", True),
        ("fell from its start", True),
        ("ratios", False),
    ],
)
def test_which_signs_mean_a_collapse(case, answer):
    assert collapsed(signs(CASES[case][0])) is answer


def test_a_solved_task_has_not_collapsed():
    solved = series(reward=[*RISE, *[1.0] * 20], same_reward=[0.1] * 20 + [1.0] * 20, entropy=[1.0] * 20 + [0.01] * 20)
    assert [sign.kind for sign in signs(solved)] == ["entropy", "signal"]
    assert not collapsed(signs(solved))


def test_a_rising_vote_does_not_hide_that_answers_become_wrong():
    # the vote of the training rises all the time; right completions as in "rose and lost it"
    logs = series(reward=[i / 25 for i in range(25)], eval_reward=[i / 25 for i in range(25)])
    logs["rewards/exact_match/mean"] = [0.0] * 5 + [1.0] * 10 + [0.0] * 10
    logs["eval_rewards/exact_match/mean"] = [0.3, 0.1, 0.1] + [None] * 22
    metrics = "rewards/exact_match/mean", "eval_rewards/exact_match/mean"
    assert signs(logs) == []
    # the validations fall at log 3, and the mean of five logs at log 18
    assert [(sign.kind, sign.step) for sign in signs(logs, *metrics)] == [("fall", 30), ("drawdown", 180)]
    del logs["rewards/exact_match/mean"]  # results of an earlier version
    assert [(sign.kind, sign.step) for sign in signs(logs, *metrics)] == [("fall", 30)]
    logs["reward"] = [0.5] + [None] * 24  # the reward that a run trains on says whether it was graded
    assert ("ungraded", 40) in [(sign.kind, sign.step) for sign in signs(logs, *metrics)]


def test_max_drawdown():
    # means of five logs: 0.2, 0.4, 0.6, 0.8, 0.8, 0.6, 0.4, 0.4
    rewards = [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 1]
    assert max_drawdown(rewards) == pytest.approx(0.4)
    assert max_drawdown([None, *rewards[:6], None, *rewards[6:]]) == pytest.approx(0.4)
    assert max_drawdown(sorted(rewards)) == 0
    assert max_drawdown([1, 1, 1, 1]) is None


def test_gradient_spikes():
    assert gradient_spikes([1.0] * 4 + [99.0]) == []  # fewer than five earlier logs
    assert gradient_spikes([1.0] * 5 + [None, 11.0, 10.0, 9.0, 12.0]) == [6, 9]
    assert gradient_spikes([1.0, math.inf, math.nan]) == [1, 2]
    assert gradient_spikes([0.0] * 9 + [1.0]) == []  # the median is 0


def test_a_gradient_norm_that_is_not_finite():
    assert signs(series(grad_norm=[math.nan, 1.0]))[0].line == "The gradient norm is nan."


def test_every_sign_has_a_definition():
    found = {sign.kind for logs, _ in CASES.values() for sign in signs(logs)}
    assert found == set(SIGNS)
    assert set(COLLAPSES) < set(SIGNS)
