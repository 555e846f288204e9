"""Signs of trouble in a run, and when each of them appeared.

A run has **collapsed** if it shows one of the signs in `COLLAPSES`. The other signs may precede a collapse, but they
also appear in successful runs: on a solved task, the entropy is low, and all completions of a prompt get the same
reward. `SIGNS` defines each sign.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import fmean, median
from typing import Any, NamedTuple

from gbpo.trainer.guards import collapse
from gbpo.trainer.guards.collapse import (
    DRAWDOWN_SHARE,
    LOW_LOGS,
    LOW_SHARE,
    NO_SIGNAL_LOGS,
    SMOOTHED_LOGS,
    UNGRADED_LOGS,
)

LOW_VALIDATIONS = 2
OUTSIDE_SHARE = 0.2
SPIKE = 10

# Kind of sign → its definition, as printed in the report
SIGNS = {
    "ungraded": f"No completion was graded in the last {UNGRADED_LOGS} logs.",
    "drawdown": f"The mean reward of the last {SMOOTHED_LOGS} logs has lost more than {DRAWDOWN_SHARE:.0%} of its rise "
    "from the first to the best of these means. The rise must exceed twice the noise, which is the mean "
    "absolute difference between the rewards of successive logs.",
    "fall": f"The mean reward of the last {SMOOTHED_LOGS} logs has lost more than {DRAWDOWN_SHARE:.0%} of its best "
    f"value, and more than twice the noise. Or the validation reward was below {1 - DRAWDOWN_SHARE:.0%} of its best "
    f"value at {LOW_VALIDATIONS} validations in a row. The best value must be above 0. This sign also covers runs "
    "whose reward never rose.",
    "signal": f"All completions of every prompt had the same reward in the last {NO_SIGNAL_LOGS} logs.",
    "entropy": f"The entropy was below {LOW_SHARE:.0%} of its first value in the last {LOW_LOGS} logs.",
    "length": f"The mean completion length was below {LOW_SHARE:.0%} of its first value in the last {LOW_LOGS} logs.",
    "ratio": f"More than {OUTSIDE_SHARE:.0%} of the tokens of a log had a ratio outside the bounds.",
    "gradient": f"The gradient norm was not finite, or above {SPIKE} times the median of the earlier logs (at least "
    f"{SMOOTHED_LOGS}).",
}
COLLAPSES = ("ungraded", "drawdown", "fall")

_GENERATION = ("reward", "completions/mean_length", "frac_reward_zero_std")  # metrics of logs that cover a generation
_READ = ("step", "entropy", "grad_norm", "gbpo/outside_bounds", "eval_reward", *_GENERATION)

Series = Mapping[str, Sequence[float | None]]


@dataclass(frozen=True)
class Sign:
    """A sign of trouble.

    Args:
        step: First optimiser step at which the sign appeared.
        kind: Key of `SIGNS`.
        line: One sentence with the numbers.
    """

    step: int
    kind: str
    line: str


def signs(series: Series, reward: str = "reward", validation: str = "eval_reward") -> list[Sign]:
    """Find the first log at which each kind of sign appeared.

    Args:
        series: Logged metrics, as in `Cell.series`. Metrics may be missing.
        reward: Metric in which a drawdown or a fall is looked for. It differs from the reward that the run trained on
            if that reward does not say what is right, such as the agreement with a majority vote.
        validation: The same for the validations.

    Returns:
        At most one sign per kind, in order of appearance.
    """
    rows = _rows(series)
    read = {"reward": reward, "eval_reward": validation}
    others = {name: column for name, column in series.items() if name not in read}
    graded = _rows(others | {name: series[metric] for name, metric in read.items() if metric in series})
    lines = [
        *(found for found in _collapses(rows) if found[1] != "drawdown"),
        *(found for found in _collapses(graded) if found[1] == "drawdown"),
        *sorted([*_fall(graded), *_validation_fall(graded)])[:1],
        *_ratio(rows),
        *_gradient(rows),
    ]
    return [Sign(int(rows[i]["step"]), kind, line) for i, kind, line in sorted(lines)]


def collapsed(found: Iterable[Sign]) -> bool:
    """Whether one of the signs means that the run collapsed."""
    return any(sign.kind in COLLAPSES for sign in found)


def max_drawdown(rewards: Sequence[float | None]) -> float | None:
    """Largest fall of the smoothed reward (mean of `SMOOTHED_LOGS` logs) below its peak so far; None for fewer logs."""
    graded = [reward for reward in rewards if reward is not None]
    return max((log.peak - log.mean for log in _smoothed(graded)), default=None)


def gradient_spikes(norms: Sequence[float | None]) -> list[int]:
    """Indices of the logs whose gradient norm gives the sign `"gradient"`."""
    spikes = []
    earlier: list[float] = []  # finite, ascending
    for i, norm in enumerate(norms):
        if norm is None:
            continue
        if not math.isfinite(norm):
            spikes.append(i)
            continue
        if len(earlier) >= SMOOTHED_LOGS and 0 < SPIKE * median(earlier) < norm:
            spikes.append(i)
        insort(earlier, norm)
    return spikes


_Found = tuple[int, str, str]  # index of the log, kind of sign, sentence
_Row = dict[str, Any]


class _Smoothed(NamedTuple):
    """Mean reward of the last `SMOOTHED_LOGS` logs, the first and the highest of these means so far, and the noise."""

    mean: float
    first: float
    peak: float
    noise: float


def _smoothed(rewards: Sequence[float]) -> list[_Smoothed]:
    means = [fmean(rewards[i - SMOOTHED_LOGS : i]) for i in range(SMOOTHED_LOGS, len(rewards) + 1)]
    moved = accumulate((abs(b - a) for a, b in pairwise(rewards)), initial=0.0)
    noise = [total / n for n, total in enumerate(moved) if n >= SMOOTHED_LOGS - 1]
    peaks = accumulate(means, max)
    return [_Smoothed(mean, means[0], *rest) for mean, *rest in zip(means, peaks, noise, strict=False)]


def _rows(series: Series) -> list[_Row]:
    """The logs as the trainer wrote them. The reward is None for a log with a generation but without graded rows."""
    columns = {name: series[name] for name in _READ if name in series}
    rows = [
        {name: column[i] for name, column in columns.items() if column[i] is not None}
        for i in range(len(columns.get("step", ())))
    ]
    return [{"reward": None} | row if any(name in row for name in _GENERATION) else row for row in rows]


def _graded(rows: Sequence[_Row]) -> Iterator[tuple[int, _Smoothed]]:
    logs = [i for i, row in enumerate(rows) if row.get("reward") is not None]
    return zip(logs[SMOOTHED_LOGS - 1 :], _smoothed([rows[i]["reward"] for i in logs]), strict=True)


def _collapses(rows: Sequence[_Row]) -> Iterator[_Found]:
    suspects = _suspects(rows)
    for i in range(len(rows)):
        if any(i in logs for logs in suspects.values()):
            for kind, line in collapse.find(rows[: i + 1]).items():
                if suspects.pop(kind, None) is not None:
                    yield i, kind, line


def _suspects(rows: Sequence[_Row]) -> dict[str, set[int]]:
    """Logs at which a sign may appear. Calling `collapse.find` at each of 1,000 logs would take a second."""
    generations = [(i, row) for i, row in enumerate(rows) if "reward" in row]
    same_reward = accumulate(
        (row.get("frac_reward_zero_std") == 1 for _, row in generations), lambda n, one: (n + 1) * one
    )

    def low(name):
        values = [(i, row[name]) for i, row in enumerate(rows) if name in row]
        return {i for i, value in values if value < LOW_SHARE * values[0][1]}

    return {
        "ungraded": {i for i, row in generations if row["reward"] is None},
        "signal": {i for (i, _), n in zip(generations, same_reward, strict=True) if n >= NO_SIGNAL_LOGS},
        "entropy": low("entropy"),
        "length": low("completions/mean_length"),
        "drawdown": {
            i
            for i, (mean, first, peak, noise) in _graded(rows)
            if peak - first > 2 * noise and peak - mean > DRAWDOWN_SHARE * (peak - first)
        },
    }


def _fall(rows: Sequence[_Row]) -> Iterator[_Found]:
    for i, (mean, _, peak, noise) in _graded(rows):
        if peak > 0 and peak - mean > max(DRAWDOWN_SHARE * peak, 2 * noise):
            yield i, "fall", f"The mean reward of {SMOOTHED_LOGS} logs fell from {peak:.3g} at its best to {mean:.3g}."
            return


def _validation_fall(rows: Sequence[_Row]) -> Iterator[_Found]:
    best, low = 0.0, 0
    for i, row in enumerate(rows):
        reward = row.get("eval_reward")
        if reward is None:
            continue
        best = max(best, reward)
        low = low + 1 if best > 0 and reward < (1 - DRAWDOWN_SHARE) * best else 0
        if low == LOW_VALIDATIONS:
            yield i, "fall", f"The validation reward fell from {best:.3g} at its best to {reward:.3g}."
            return


def _ratio(rows: Sequence[_Row]) -> Iterator[_Found]:
    for i, row in enumerate(rows):
        share = row.get("gbpo/outside_bounds", 0)
        if share > OUTSIDE_SHARE:
            yield (
                i,
                "ratio",
                f"{share:.0%} of the tokens have a ratio outside the bounds, more than {OUTSIDE_SHARE:.0%}.",
            )
            return


def _gradient(rows: Sequence[_Row]) -> Iterator[_Found]:
    norms = [row.get("grad_norm") for row in rows]
    for i in gradient_spikes(norms)[:1]:
        earlier = [norm for norm in norms[:i] if norm is not None and math.isfinite(norm)]
        usual = f" after a median of {median(earlier):.3g}" if earlier else ""
        yield i, "gradient", f"The gradient norm is {norms[i]:.3g}{usual}."
