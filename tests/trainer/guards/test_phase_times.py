"""Where the time of a step goes."""

import time

import pytest

from gbpo.trainer.base import BaseTrainer
from gbpo.trainer.guards.phase_times import PHASES


def slow(completions, **kwargs):
    time.sleep(0.2)
    return [float(i % 2) for i in range(len(completions))]


@pytest.mark.parametrize("base", [None, BaseTrainer], ids=["gbpo", "grpo"])
def test_phases_add_up_to_the_steps(make_trainer, base):
    """Two generations of two updates: rewards are waited for in every second step."""
    trainer = make_trainer("grpo" if base else "gbpo", base=base, reward_funcs=slow, max_steps=4, beta=0.1)
    began = time.perf_counter()
    trainer.train()
    whole = time.perf_counter() - began
    rows = [row for row in trainer.state.log_history if "time/loss" in row]
    assert len(rows) == 4
    assert [row["time/reward"] > 0.2 for row in rows] == [True, False, True, False]
    assert all(row["time/reward"] == row["time/generate"] == row["time/old"] == 0 for row in rows[1::2])
    assert all(row["time/reward"] < 0.4 and row["time/old"] > 0 for row in rows[::2])
    assert all(row["time/loss"] > 0 and row["time/optimiser"] > 0 for row in rows)
    for row in rows:  # what TRL measures is all but the optimiser
        assert sum(row[f"time/{phase}"] for phase in PHASES[:-1]) == pytest.approx(row["step_time"], rel=0.05, abs=0.02)
    assert sum(row[f"time/{phase}"] for row in rows for phase in PHASES) < whole
