"""The seconds of each phase and the tokens per second, averaged over generations."""

import pytest

from gbpo.run.output.pace import RATE, by_generation, slowest


def row(step, tokens, generate, loss):
    return {"step": step, "num_tokens": tokens, "time/generate": generate, "time/loss": loss}


def test_the_steps_of_a_generation_are_averaged():
    """100 tokens in (4 + 1) + (0 + 1) = 6 s; then 60 tokens in 3 s."""
    rows = [
        row(1, 100, 4, 1),
        {"step": 1, "eval_reward": 0.5},
        row(2, 100, 0, 1),
        row(3, 160, 2, 0.5),
        row(4, 160, 0, 0.5),
    ]
    first, second = by_generation(rows)
    assert first == {"step": 2, "time/generate": 2.0, "time/loss": 1.0, RATE: pytest.approx(100 / 6)}
    assert second == {"step": 4, "time/generate": 1.0, "time/loss": 0.5, RATE: 20.0}


def test_a_generation_that_lasts_is_left_out():
    """Only its first step is logged: all its tokens over the seconds of that step would be too fast."""
    rows = [row(1, 100, 4, 1), row(2, 100, 0, 1), row(3, 200, 4, 1)]
    assert [found["step"] for found in by_generation(rows)] == [2]
    assert [found["step"] for found in by_generation([*rows, row(4, 200, 0, 1)])] == [2, 4]


def test_a_log_of_many_steps_counts_all_of_them():
    """A log every 20 steps gives the means of a step: 400 tokens in 20 · (1 + 1) s, 800 more in 20 · (1 + 3) s."""
    rows = [row(20, 400, 1, 1), row(40, 1200, 1, 3)]
    assert [found[RATE] for found in by_generation(rows)] == [10.0, 10.0]
    assert [found[RATE] for found in by_generation(rows[1:], step=20, tokens=400)] == [10.0]


def test_the_slowest_phase_and_its_share():
    assert slowest(row(1, 100, 1, 3)) == ("loss", 0.75)
    assert slowest({"step": 1, "time/loss": 0.0}) is None
