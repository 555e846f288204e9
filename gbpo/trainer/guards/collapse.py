"""Collapse of a run, read from its log: no signal, no entropy, no length, lost reward, no grades."""

import math
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback

from ...shared.stopping import TrainingStopped

NO_SIGNAL_LOGS = 10
UNGRADED_LOGS = 3
LOW_LOGS = 3
LOW_SHARE = 0.05
SMOOTHED_LOGS = 5
DRAWDOWN_SHARE = 0.5


def find(history: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What has collapsed by the last log, each kind with a line: its numbers, what they mean and what to try.

    Args:
        history: The logs of a run so far, as `TrainerState.log_history` has them. A log averages over its window of
            optimiser steps; those of windows without a generation count for the entropy alone.

    Returns:
        A line for each of the kinds that hold:

        - `"ungraded"`: `reward` is None, so no completion was graded, in the last `UNGRADED_LOGS` logs.
        - `"signal"`: all completions of every prompt had the same reward in the last `NO_SIGNAL_LOGS` logs.
        - `"entropy"`, `"length"`: below `LOW_SHARE` of its first log in the last `LOW_LOGS` logs.
        - `"drawdown"`: the mean reward of the last `SMOOTHED_LOGS` logs has lost more than `DRAWDOWN_SHARE` of its
          rise, from the first such mean to the best, where that rise is more than twice the noise, the mean absolute
          difference of successive logs.
    """
    generations = [row for row in history if "reward" in row]
    found = {
        "ungraded": _ungraded(generations),
        "signal": _no_signal(generations),
        "entropy": _low(
            history,
            "entropy",
            "nats per token: the policy hardly varies its answers. Try a lower learning_rate, an entropy_coef, beta "
            "above 0, or a smaller epsilon",
        ),
        "length": _low(
            generations,
            "completions/mean_length",
            "tokens: the policy answers next to nothing. See the completions, and whether a reward pays for brevity",
        ),
        "drawdown": _drawdown([row["reward"] for row in generations if row["reward"] is not None]),
    }
    return {kind: line for kind, line in found.items() if line}


class CollapseWatch(TrainerCallback):
    """Warns once of each collapse, or ends the run.

    Args:
        stop: End the run on any collapse. A run without grades is ended in any case.
    """

    def __init__(self, stop: bool):
        self._stop = stop
        self._warned: set[str] = set()

    def on_log(self, args, state, control, **kwargs):
        for kind, line in find(state.log_history).items():
            if self._stop or kind == "ungraded":
                raise TrainingStopped(line)
            if kind not in self._warned and state.is_world_process_zero:
                self._warned.add(kind)
                tqdm.write(f"gbpo: warning: {line} (stop_on_collapse: true would end the run here)", file=sys.stderr)


def _ungraded(generations: Sequence[Mapping[str, Any]]) -> str | None:
    last = generations[-UNGRADED_LOGS:]
    if len(last) < UNGRADED_LOGS or any(row["reward"] is not None for row in last):
        return None
    shares = [f"{key} {value:.0%}" for key, value in last[-1].items() if key.startswith("rewards/") and value]
    return (
        f"No completion was graded in the last {UNGRADED_LOGS} logs ({', '.join(shares) or 'no status was given'}): "
        "the reward failed, or the data set has no golds, and nothing is learnt."
    )


def _no_signal(generations: Sequence[Mapping[str, Any]]) -> str | None:
    last = generations[-NO_SIGNAL_LOGS:]
    if len(last) < NO_SIGNAL_LOGS or any(row.get("frac_reward_zero_std") != 1 for row in last):
        return None
    return (
        f"All completions of every prompt had the same reward in the last {NO_SIGNAL_LOGS} logs (mean reward "
        f"{_number(last[-1]['reward'])}): no advantage differs from 0, and nothing is learnt. Take prompts that are "
        "neither hopeless nor trivial for this model, or more num_generations."
    )


def _low(rows: Sequence[Mapping[str, Any]], key: str, meaning: str) -> str | None:
    values = [row[key] for row in rows if row.get(key) is not None]
    if len(values) <= LOW_LOGS or not all(value < LOW_SHARE * values[0] for value in values[-LOW_LOGS:]):
        return None
    return f"{key} has fallen from {_number(values[0])} to {_number(values[-1])} {meaning}."


def _drawdown(rewards: Sequence[float]) -> str | None:
    if len(rewards) < 2 * SMOOTHED_LOGS:
        return None
    means = [fmean(rewards[i - SMOOTHED_LOGS : i]) for i in range(SMOOTHED_LOGS, len(rewards) + 1)]
    noise = fmean(abs(b - a) for a, b in pairwise(rewards))
    rise, loss = max(means) - means[0], max(means) - means[-1]
    if rise <= 2 * noise or loss <= DRAWDOWN_SHARE * rise:
        return None
    return (
        f"The mean reward of {SMOOTHED_LOGS} logs had risen from {_number(means[0])} to {_number(max(means))} and is "
        f"now {_number(means[-1])}: {loss / rise:.0%} of the rise is lost. Go on from the best checkpoint with a lower "
        "learning_rate, num_iterations or epsilon."
    )


def _number(value: float | None) -> str:
    return "none" if value is None or not math.isfinite(value) else f"{value:.3g}"
