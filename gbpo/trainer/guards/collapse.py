"""Detects the collapse of a run in its logs: no graded completion, no signal, low entropy or length, lost reward."""

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
    """Find the kinds of collapse that the last logs show.

    Args:
        history: The logs of a run so far, as in `TrainerState.log_history`. A log averages over several optimiser
            steps. Logs of steps without a generation are used for the entropy only.

    Returns:
        For each kind of collapse that is found, one line with its numbers, what they mean and what to try:

        - `"ungraded"`: `reward` is None in the last `UNGRADED_LOGS` logs, so no completion was graded.
        - `"signal"`: all completions of every prompt had the same reward in the last `NO_SIGNAL_LOGS` logs.
        - `"entropy"`, `"length"`: in each of the last `LOW_LOGS` logs the value is below `LOW_SHARE` times its value in
          the first log.
        - `"drawdown"`: the mean reward of `SMOOTHED_LOGS` logs has lost more than `DRAWDOWN_SHARE` of its rise. The
          rise is from the first such mean to the best one. It counts only if it exceeds twice the noise, which is the
          mean absolute difference between successive logs.
    """
    generations = [row for row in history if "reward" in row]
    found = {
        "ungraded": _ungraded(generations),
        "signal": _no_signal(generations),
        "entropy": _low(
            history,
            "entropy",
            "nats per token: the policy gives nearly the same answers each time. Try a lower learning_rate, an "
            "entropy_coef, beta above 0, or a smaller epsilon",
        ),
        "length": _low(
            generations,
            "completions/mean_length",
            "tokens: the completions are nearly empty. Read some of them, and check whether a reward favours short "
            "completions",
        ),
        "drawdown": _drawdown([row["reward"] for row in generations if row["reward"] is not None]),
    }
    return {kind: line for kind, line in found.items() if line}


class CollapseWatch(TrainerCallback):
    """Warns once about each kind of collapse, or ends the run.

    Args:
        stop: End the run on any collapse. A run without graded completions always ends.
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
        "the reward failed, or the data set has no reference answers. Nothing is learnt."
    )


def _no_signal(generations: Sequence[Mapping[str, Any]]) -> str | None:
    last = generations[-NO_SIGNAL_LOGS:]
    if len(last) < NO_SIGNAL_LOGS or any(row.get("frac_reward_zero_std") != 1 for row in last):
        return None
    return (
        f"All completions of every prompt had the same reward in the last {NO_SIGNAL_LOGS} logs (mean reward "
        f"{_number(last[-1]['reward'])}): all advantages are 0, and nothing is learnt. Use prompts that are neither "
        "too hard nor too easy for this model, or more num_generations."
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
        f"now {_number(means[-1])}: {loss / rise:.0%} of the rise is lost. Resume from the best checkpoint with a "
        "lower learning_rate, num_iterations or epsilon."
    )


def _number(value: float | None) -> str:
    return "none" if value is None or not math.isfinite(value) else f"{value:.3g}"
