"""Signs of a run that goes wrong, and which of them came first.

A run has **collapsed** when one of the signs `COLLAPSES` held:

- `"ungraded"`, `"drawdown"`: as `gbpo.trainer.guards.collapse.find` has them, no completion graded, or more than half
  of the rise of the reward lost;
- `"fall"`: more than half of the best reward lost, by more than twice the noise (means of `SMOOTHED_LOGS` logs, noise
  the mean absolute difference of successive logs), or more than half of the best validation reward at
  `LOW_VALIDATIONS` validations in a row. A run that falls from its start has no rise to lose.

The other signs may come before a collapse, or with success, and are none by themselves:

- `"signal"`, `"entropy"`, `"length"`: as `find` has them; a solved task leaves no signal and little entropy too;
- `"ratio"`: more than `OUTSIDE_SHARE` of the tokens of a log have a ratio outside the bounds;
- `"gradient"`: the gradient norm is not finite, or exceeds `SPIKE` times the median of the earlier logs, of which there
  are at least `SMOOTHED_LOGS`.
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
from gbpo.trainer.guards.collapse import DRAWDOWN_SHARE, LOW_SHARE, NO_SIGNAL_LOGS, SMOOTHED_LOGS

COLLAPSES = frozenset({"ungraded", "drawdown", "fall"})
LOW_VALIDATIONS = 2
OUTSIDE_SHARE = 0.2
SPIKE = 10

_GENERATION = ("reward", "completions/mean_length", "frac_reward_zero_std")  # logged where there was a generation
_READ = ("step", "entropy", "grad_norm", "gbpo/outside_bounds", "eval_reward", *_GENERATION)

Series = Mapping[str, Sequence[float | None]]


@dataclass(frozen=True)
class Sign:
    """The first step at which a sign of trouble held, with a line of numbers for a reader."""

    step: int
    kind: str
    line: str


def signs(series: Series) -> list[Sign]:
    """Each kind of sign at the first log where it held, in the order they came.

    Args:
        series: As in `Cell.series`; columns may be missing, and an empty one has no signs.
    """
    rows = _rows(series)
    falls = sorted([*_fall(rows), *_validation_fall(rows)])[:1]
    lines = [*_collapses(rows), *falls, *_ratio(rows), *_gradient(rows)]
    return [Sign(int(rows[i]["step"]), kind, line) for i, kind, line in sorted(lines)]


def collapsed(found: Iterable[Sign]) -> bool:
    """Whether the signs of a run are those of a collapse, as the head of this module defines it."""
    return any(sign.kind in COLLAPSES for sign in found)


def max_drawdown(rewards: Sequence[float | None]) -> float | None:
    """Largest fall of the reward, smoothed over `SMOOTHED_LOGS` logs, from its peak so far; None of fewer logs."""
    graded = [reward for reward in rewards if reward is not None]
    return max((log.peak - log.mean for log in _smoothed(graded)), default=None)


def gradient_spikes(norms: Sequence[float | None]) -> list[int]:
    """Indices of the logs whose gradient norm is the sign `"gradient"`."""
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


_Found = tuple[int, str, str]  # index of the log, kind of sign, line
_Row = dict[str, Any]


class _Smoothed(NamedTuple):
    """The reward over the last `SMOOTHED_LOGS` logs, the first and the highest such mean so far, and the noise."""

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
    """The logs as the trainer wrote them: a generation without grades has the reward None, other logs have none."""
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
    """Logs at which a kind of collapse may begin to hold; asking `find` at all of a thousand would take a second."""
    generations = [(i, row) for i, row in enumerate(rows) if "reward" in row]
    alike = accumulate((row.get("frac_reward_zero_std") == 1 for _, row in generations), lambda n, one: (n + 1) * one)

    def low(name):
        values = [(i, row[name]) for i, row in enumerate(rows) if name in row]
        return {i for i, value in values if value < LOW_SHARE * values[0][1]}

    return {
        "ungraded": {i for i, row in generations if row["reward"] is None},
        "signal": {i for (i, _), n in zip(generations, alike, strict=True) if n >= NO_SIGNAL_LOGS},
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
            yield i, "fall", f"The mean reward of {SMOOTHED_LOGS} logs was {peak:.3g} at best and is now {mean:.3g}."
            return


def _validation_fall(rows: Sequence[_Row]) -> Iterator[_Found]:
    best, low = 0.0, 0
    for i, row in enumerate(rows):
        reward = row.get("eval_reward")
        if reward is None:
            continue
        best = max(best, reward)
        low = low + 1 if reward < (1 - DRAWDOWN_SHARE) * best else 0
        if low == LOW_VALIDATIONS:
            yield i, "fall", f"The validation reward was {best:.3g} at best and is now {reward:.3g}."
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
