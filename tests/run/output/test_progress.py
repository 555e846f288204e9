"""The line of a logging step that a person reads."""

from types import SimpleNamespace

import pytest

from gbpo.run.output import progress
from gbpo.run.output.progress import MetricsFile


@pytest.fixture
def printed(tmp_path, capsys, monkeypatch):
    """`printed(step, **logs)` logs a step of a run of 600 steps, 2 seconds after the one before: the printed line."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    begun = []

    def log(step, **logs):
        state = SimpleNamespace(is_world_process_zero=True, global_step=step, max_steps=600)
        if not begun:
            begun.append(MetricsFile(tmp_path))
            begun[0].on_train_begin(None, SimpleNamespace(is_world_process_zero=True, global_step=0), None)
        now[0] += 2.0
        begun[0].on_log(None, state, None, logs=logs)
        return capsys.readouterr().out.rstrip("\n")

    return log


def test_the_line_says_what_is_outside(printed):
    line = printed(20, loss=0.01, reward=0.5, **{"gbpo/outside_bounds": 0.073})
    assert line == "step 20/600  reward 0.500  loss +0.0100  7.3% of ratios outside the bounds  58 s left"


def test_the_reward_has_its_trend(printed):
    """The first and the last fifth of 10 logs have two each: means 0.05 and 0.85."""
    lines = [printed(step, loss=0.0, reward=(step - 1) / 10) for step in range(1, 11)]
    assert "reward 0.100 (logs: 0.00 -> 0.10)" in lines[1]
    assert "reward 0.900 (logs: 0.05 -> 0.85)" in lines[9]


def test_the_time_left_follows_the_time_so_far(printed):
    """2 s for each log of 10 steps: 590 steps take 118 s, and 290 steps 58 s."""
    assert printed(10, loss=0.0).endswith("  118 s left")
    lines = [printed(step, loss=0.0) for step in range(20, 601, 10)]
    assert lines[29].endswith("step 310/600  loss +0.0000  58 s left")
    assert "left" not in lines[-1]


def test_the_speed_is_that_of_the_last_whole_generation(printed):
    """Two steps per generation: 1000 tokens in 3 + 1 + 1 s are 200 per second, 3 of 5 seconds generate."""
    lines = []
    for step in range(1, 101):
        times = {"time/generate": 3.0 if step % 2 else 0.0, "time/loss": 1.0}
        lines.append(printed(step, loss=0.0, num_tokens=1000.0 * ((step + 1) // 2), **times))
    assert "tokens/s" not in lines[2]
    for line in lines[3:]:
        assert "  200 tokens/s  generate takes 60%  " in line


def test_an_evaluation_has_a_line_of_its_own(printed):
    printed(10, loss=0.0, reward=0.5)
    assert printed(10, eval_reward=0.25) == "step 10/600  eval reward 0.250"
