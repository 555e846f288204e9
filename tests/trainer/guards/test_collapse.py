"""Collapse is found in the logs of a run when it happens and not before."""

import random

import pytest
from transformers import TrainerState

from gbpo.shared.stopping import TrainingStopped
from gbpo.trainer.guards.collapse import CollapseWatch, find


def logs(**columns):
    """Logs of a healthy run with some columns replaced by lists of values."""
    size = len(next(iter(columns.values())))
    healthy = {"reward": 0.5, "entropy": 1.0, "completions/mean_length": 100.0, "frac_reward_zero_std": 0.2}
    return [healthy | {name: values[i] for name, values in columns.items()} for i in range(size)]


def named(**columns):
    return logs(**{name.replace("length", "completions/mean_length"): values for name, values in columns.items()})


NOISE = random.Random(0)
RISE = [i / 40 for i in range(40)]
CASES = {
    "healthy": (named(reward=RISE), set()),
    "empty": ([], set()),
    "one log": (named(reward=[None]), set()),
    "no signal in nine logs": (named(frac_reward_zero_std=[0.5] + [1] * 9), set()),
    "no signal in ten logs": (named(frac_reward_zero_std=[0.5] + [1] * 10), {"signal"}),
    "nearly no signal": (named(frac_reward_zero_std=[0.99] * 20), set()),
    "signal found again": (named(frac_reward_zero_std=[1] * 12 + [0.9]), set()),
    "ungraded twice": (named(reward=[0.5, None, None]), set()),
    "ungraded three times": (named(reward=[0.5, None, None, None]), {"ungraded"}),
    "graded again": (named(reward=[None, None, None, 0.1]), set()),
    "entropy halves": (named(entropy=[1.0] + [0.5] * 20), set()),
    "entropy dips twice": (named(entropy=[1.0, 0.5, 0.04, 0.04]), set()),
    "entropy gone": (named(entropy=[1.0, 0.5, 0.04, 0.04, 0.04]), {"entropy"}),
    "low from the start": (named(entropy=[0.01] * 20), set()),
    "length gone": (named(length=[100.0, 4.0, 4.0, 4.0]), {"length"}),
    "length returns": (named(length=[100.0, 4.0, 4.0, 4.0, 6.0]), set()),
    "rose and lost a third": (named(reward=[*RISE, *[1 - i / 40 for i in range(12)]]), set()),
    "rose and lost all": (named(reward=[*RISE, *[1 - i / 40 for i in range(40)]]), {"drawdown"}),
    "fell from the start": (named(reward=[1 - i / 40 for i in range(40)]), set()),
    "noise alone": (named(reward=[0.5 + 0.2 * NOISE.gauss(0, 1) for _ in range(200)]), set()),
    "negative rewards": (named(reward=[r - 3 for r in [*RISE, *RISE[::-1]]]), {"drawdown"}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_kinds_of_collapse(case):
    history, kinds = CASES[case]
    assert set(find(history)) == kinds


def test_noise_is_never_a_drawdown():
    rng = random.Random(1)
    rewards = [0.5 + 0.2 * rng.gauss(0, 1) for _ in range(300)]
    assert not any(find(named(reward=rewards[:n])) for n in range(300))


def test_logs_without_a_generation_count_only_for_the_entropy():
    within = [{"loss": 0.1, "entropy": 0.01}] * 3
    assert set(find([*named(entropy=[1.0]), *within])) == {"entropy"}
    assert not find([*named(reward=[None, None], entropy=[0.01, 0.01]), *within, {"eval_reward": 0.5}])


def test_the_lines_contain_the_numbers():
    assert "from 1 to 0.04" in find(CASES["entropy gone"][0])["entropy"]
    history = named(reward=[0.5, None, None, None])
    history[-1]["rewards/code/error"] = 1.0
    assert "rewards/code/error 100%" in find(history)["ungraded"]
    # means of five: from 2/40 up to (38 + 39 + 40 + 39 + 38) / 5 / 40, down to 3/40
    assert "from 0.05 to 0.97 and is now 0.075: 97% of the rise" in find(CASES["rose and lost all"][0])["drawdown"]


def run(history, stop):
    watch, state = CollapseWatch(stop), TrainerState(is_world_process_zero=True)
    for row in history:
        state.log_history.append(row)
        watch.on_log(None, state, None)


def test_warns_once_and_stops_when_asked(capsys):
    history = CASES["entropy gone"][0] + named(entropy=[0.01] * 5)
    run(history, stop=False)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("gbpo: warning: entropy has fallen from 1 to 0.04") and "stop_on_collapse" in line
    with pytest.raises(TrainingStopped, match="entropy has fallen from 1 to 0.04"):
        run(history, stop=True)


def test_a_run_without_grades_ends_even_if_it_should_only_warn():
    with pytest.raises(TrainingStopped, match="No completion was graded"):
        run(named(reward=[0.5, None, None, None]), stop=False)
