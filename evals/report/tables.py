"""The tables of a report: their columns with definitions, and their cells as text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from gbpo.shared.pages.formatting import NOTHING, amount, duration, number

from ..shared.estimates import Interval
from ..shared.results import label
from .analysis import Analysis, PointSummary
from .differences import PointDifference
from .formatting import bounds, signed

_CORRECT = "A sample is correct if its reward is 1."


class Text(NamedTuple):
    """A cell of a table: the value, a small line below the value, and whether the value is a significant difference."""

    value: str
    below: str = ""
    significant: bool = False


class Column(NamedTuple):
    """A column of a table and the meaning of its head."""

    head: str
    about: str
    cell: Callable[[PointSummary, PointDifference | None], Text]


@dataclass(frozen=True)
class Table:
    """A table. `groups` has an entry per grid point: its name and its rows. A row is an algorithm and its cells."""

    name: str
    title: str
    columns: list[Column]
    groups: list[tuple[str, list[tuple[str, list[Text]]]]]


def _estimate(interval: Interval | None) -> Text:
    return Text(number(interval.estimate), bounds(interval)) if interval else Text(NOTHING)


def _difference(interval: Interval | None) -> Text:
    if interval is None:
        return Text(NOTHING)
    return Text(signed(interval.estimate), bounds(interval, signed), interval.excludes_zero)


def tables(analysis: Analysis, mean: str) -> dict[str, Table]:
    """Build the tables of the report.

    Args:
        analysis: The numbers of the report.
        mean: Name of the final reward, for example `"mean@8"`.

    Returns:
        The tables `quality`, `diversity`, `versus`, `cost`, `stability` and `summary` by name.
    """
    passes = sorted({k for summary in analysis.summaries for k in summary.pass_at})
    quality = [
        Column(
            "seeds",
            "Number of finished runs.",
            lambda s, _: Text(f"{s.seeds}", f"({s.failed} failed)" * bool(s.failed)),
        ),
        Column(f"{mean}, last", "Mean reward of the final model's samples.", lambda s, _: _estimate(s.last)),
        Column(
            f"{mean}, best",
            "Mean reward of the samples of the checkpoint with the highest validation reward.",
            lambda s, _: _estimate(s.best),
        ),
        Column(
            "IQM",
            "Interquartile mean: mean of the middle half of the scores over seeds and questions.",
            lambda s, _: _estimate(s.iqm),
        ),
        Column("majority", "Reward of the most common answer to each question.", lambda s, _: _estimate(s.majority)),
        Column("greedy", "Reward of greedy decoding.", lambda s, _: _estimate(s.greedy)),
        Column(
            "area",
            "Mean validation reward over the run, that is the area under its curve divided by the steps.",
            lambda s, _: _estimate(s.area),
        ),
    ]
    diversity = [
        *(
            Column(
                f"pass@{k}",
                f"Probability that at least one of {k} samples is correct (unbiased estimate). {_CORRECT}"
                if k > 1
                else f"Probability that a sample is correct. {_CORRECT}",
                lambda s, _, k=k: _estimate(s.pass_at.get(k)),  # type: ignore[misc]
            )
            for k in passes
        ),
        Column("entropy", "Entropy of the last log, nats per token.", lambda s, _: _estimate(s.entropy)),
    ]
    versus = [
        Column(
            f"{mean}, last",
            "Difference of the final models, paired by seed.",
            lambda _, d: _difference(d.last if d else None),
        ),
        Column(
            "p, Holm",
            "P-value of the first column: the paired t-test, corrected by Holm's method.",
            lambda _, d: Text(number(d.p_value if d else None)),
        ),
        Column(
            f"{mean}, best",
            "Difference of the best checkpoints, paired by seed.",
            lambda _, d: _difference(d.best if d else None),
        ),
        Column("IQM", "Difference of the interquartile means.", lambda _, d: _difference(d.iqm if d else None)),
        Column(
            "area",
            "Difference of the mean heights of the validation curves, paired by seed.",
            lambda _, d: _difference(d.area if d else None),
        ),
        Column(
            f"pass@{passes[-1]}" if passes else "pass@k",
            "Difference of pass@k of the final models, paired by seed.",
            lambda _, d: _difference(d.pass_at_k if d else None),
        ),
        Column(
            "entropy",
            "Difference of the entropies of the last logs, paired by seed.",
            lambda _, d: _difference(d.entropy if d else None),
        ),
        Column(
            "P(better)",
            "Probability that a run of the algorithm beats a run of the baseline; 0.5 means they are equally good. The "
            "interval is not corrected for the number of differences.",
            lambda _, d: _estimate(d.improvement if d else None),
        ),
    ]
    cost = [
        Column("reached", "Seeds whose validation reward reached the threshold.", lambda s, _: _of(s.reached, s)),
        Column(
            "steps",
            "Optimiser steps to the threshold, median over seeds.",
            lambda s, _: Text(amount(s.steps_to_threshold)),
        ),
        Column(
            "generations",
            "Generations to the threshold, median over seeds.",
            lambda s, _: Text(amount(s.generations_to_threshold)),
        ),
        Column(
            "completion tokens",
            "Tokens of the completions generated up to the threshold, without extra votes and resampled groups, median "
            "over seeds.",
            lambda s, _: Text(amount(s.completion_tokens_to_threshold)),
        ),
        Column(
            "all tokens",
            "Tokens of prompts and completions up to the threshold, as TRL counts them, median over seeds.",
            lambda s, _: Text(amount(s.tokens_to_threshold)),
        ),
        Column(
            "time",
            "Training time to the threshold, median over seeds.",
            lambda s, _: Text(duration(s.seconds_to_threshold)),
        ),
        Column("whole run", "Total training time, median over seeds.", lambda s, _: Text(duration(s.train_seconds))),
        Column("memory, GB", "Peak memory, median over seeds.", lambda s, _: Text(number(s.peak_memory_gb, 2))),
    ]
    behaviour = [
        Column("collapsed", "Seeds that collapsed.", lambda s, _: _of(s.collapsed, s)),
        Column(
            "first sign",
            "Sign of trouble that appeared first in a collapsed seed, with the number of such seeds.",
            lambda s, _: Text(", ".join(f"{sign} {n}" for sign, n in s.first_signs.items()) or NOTHING),
        ),
        Column(
            "drawdown",
            "Largest fall of the smoothed training reward from its peak so far, mean over seeds.",
            lambda s, _: Text(number(s.max_drawdown)),
        ),
        Column(
            "entropy",
            "Entropy of the first → last log, nats per token, mean over seeds.",
            lambda s, _: _pair((s.first_entropy, s.entropy.estimate) if s.entropy else None, " → ", 2),
        ),
        Column(
            "spikes",
            "Logs with a spike of the gradient norm, mean over seeds.",
            lambda s, _: Text(number(s.gradient_spikes, 1)),
        ),
        Column(
            "ratio",
            "Lowest 1st percentile … highest 99th percentile of π/π_old during the run, mean over seeds.",
            lambda s, _: _pair(s.ratio, " … ", 2),
        ),
        Column(
            "outside",
            "Fraction of tokens whose ratio π/π_old is outside the bounds, mean over seeds.",
            lambda s, _: Text(number(s.outside_bounds)),
        ),
        Column(
            "KL",
            "KL divergence from the starting model, nats per completion, mean over seeds.",
            lambda s, _: Text(number(s.kl_to_start, 2)),
        ),
    ]
    differences = {(label(d.setting), d.algorithm): d for d in analysis.differences}

    def table(name: str, title: str, columns: list[Column], summaries: list[PointSummary]) -> Table:
        groups: dict[str, list[tuple[str, list[Text]]]] = {}
        for summary in summaries:
            point = label(summary.setting)
            cells = [column.cell(summary, differences.get((point, summary.algorithm))) for column in columns]
            groups.setdefault(point, []).append((summary.algorithm, cells))
        return Table(name, title, columns, list(groups.items()))

    compared = [s for s in analysis.summaries if (label(s.setting), s.algorithm) in differences]
    made = [
        table("quality", "Test questions", quality, analysis.summaries),
        table("diversity", "Diversity of the final models", diversity, analysis.summaries),
        table("versus", f"Difference to {analysis.baseline}", versus, compared),
        table("cost", "Cost", cost, analysis.summaries),
        table("stability", "Training behaviour", behaviour, analysis.summaries),
        table(
            "summary",
            "Summary",
            [
                *quality[:3],
                *diversity[-2:],
                quality[-1],
                versus[0]._replace(head="Δ last"),
                versus[-1],
                *cost[1:4],
                behaviour[0],
            ],
            analysis.summaries,
        ),
    ]
    return {table.name: table for table in made}


def _of(count: int, summary: PointSummary) -> Text:
    return Text(f"{count} of {summary.seeds}" if summary.seeds else NOTHING)


def _pair(values: tuple[float | None, float] | None, between: str, digits: int) -> Text:
    return Text(between.join(number(value, digits) for value in values) if values else NOTHING)
