"""`time/<phase>`: the seconds of each phase, by a fake clock and in a run."""

import time

import pytest

from gbpo.trainer.base import BaseTrainer
from gbpo.trainer.guards.phase_times import PHASES, PhaseTimes


@pytest.fixture
def clock(monkeypatch):
    """`clock(seconds)` lets time pass."""
    now = [100.0]

    def wait(seconds):
        now[0] += seconds

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return wait


@pytest.fixture
def timed(clock):
    """A `PhaseTimes`, and `end_step()`, which returns the seconds that the step logs."""
    logs = {}
    times = PhaseTimes(lambda name, value: logs.__setitem__(name.removeprefix("time/"), value))

    def end_step():
        times.on_step_end(None, None, None)
        return {name: seconds for name, seconds in logs.items() if seconds}

    return times, end_step


def test_an_inner_phase_stops_the_clock_of_the_outer_one(timed, clock):
    times, end_step = timed
    with times.measure("loss"):
        clock(1)
        with times.measure("generate"):
            clock(2)
        clock(4)
        with times.measure("reward"):
            clock(8)
            with times.measure("generate"):  # extra votes
                clock(16)
            clock(32)
        clock(64)
    clock(128)
    assert end_step() == {"loss": 1 + 4 + 64, "generate": 2 + 16, "reward": 8 + 32, "optimiser": 128}


def test_a_step_starts_at_zero_and_time_between_steps_does_not_count(timed, clock):
    times, end_step = timed
    with times.measure("loss"):
        clock(1)
    end_step()
    clock(50)  # logging, checkpoints, evaluation
    with times.measure("loss"):
        clock(2)
    clock(3)
    assert end_step() == {"loss": 2, "optimiser": 3}


def test_every_phase_is_logged_in_every_step():
    logged = []
    PhaseTimes(lambda name, value: logged.append(name)).on_step_end(None, None, None)
    assert logged == [f"time/{phase}" for phase in PHASES]


def test_a_block_that_does_not_count(timed, clock):
    """A generation in evaluation is not part of the step around it."""
    times, end_step = timed
    with times.measure("loss"):
        clock(1)
        with times.measure("generate", counts=False):
            clock(10)
        clock(2)
    assert end_step() == {"loss": 3}


def test_the_clock_goes_on_after_an_error(timed, clock):
    times, end_step = timed
    with times.measure("loss"):
        with pytest.raises(RuntimeError), times.measure("old"):
            clock(1)
            raise RuntimeError
        clock(2)
    assert end_step() == {"old": 1, "loss": 2}


def slow(completions, **kwargs):
    time.sleep(0.2)
    return [float(i % 2) for i in range(len(completions))]


@pytest.mark.parametrize("base", [None, BaseTrainer], ids=["gbpo", "grpo"])
def test_phases_of_a_run_add_up_to_its_steps(make_trainer, base):
    """Two generations of two updates each, so every second step waits for rewards."""
    trainer = make_trainer("grpo" if base else "gbpo", base=base, reward_funcs=slow, max_steps=4, beta=0.1)
    began = time.perf_counter()
    trainer.train()
    whole = time.perf_counter() - began
    rows = [row for row in trainer.state.log_history if "time/loss" in row]
    assert len(rows) == 4
    assert [row["time/reward"] > 0.2 for row in rows] == [True, False, True, False]
    assert all(row["time/reward"] == row["time/generate"] == row["time/old"] == 0 for row in rows[1::2])
    assert all(row["time/old"] > 0 for row in rows[::2])
    assert all(row["time/loss"] > 0 and row["time/optimiser"] > 0 for row in rows)
    for row in rows:  # TRL's step_time is all but the optimiser
        assert sum(row[f"time/{phase}"] for phase in PHASES[:-1]) == pytest.approx(row["step_time"], rel=0.05, abs=0.02)
    assert sum(row[f"time/{phase}"] for row in rows for phase in PHASES) < whole
