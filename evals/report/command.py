"""The report of a comparison: `python -m evals.report DIR` makes `report.html`, `summary.md` and `figures/*.png`.

All of them are made from `DIR/results.json` alone. `report.html` is one file that opens offline and loads nothing.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import hashlib
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from ..shared.estimates import Interval
from . import stability
from .analysis import Analysis, Comparison, Row, analyse
from .figures import figures
from .results import Results, label
from .series import DASHES, PALETTE, PANELS, POINTS, curve, heat_maps, known, limits

TEMPLATES = Path(__file__).parent / "templates"
NOTHING = "–"
QUESTIONS = 12  # shown in full where the algorithms disagree
CHARACTERS = 1500  # of a text before it is cut

_RULES = [
    "Threshold: the baseline's final validation reward at the same point of the grid, mean over its seeds.",
    "Best checkpoint: the one of highest validation reward, the earliest of equals.",
    "Held against the baseline are the seeds that both finished.",
]
_INTERVALS = [
    "Intervals of means, areas and their differences: 95 %, Student's t over seeds, differences paired by seed.",
    "Intervals of the interquartile mean: 95 %, percentile bootstrap over seeds and questions, widened for few seeds.",
]


def main(argv: Sequence[str] | None = None) -> None:
    """Make the report of a comparison again, from its results.json."""
    parser = argparse.ArgumentParser(prog="python -m evals.report", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="the --output of evals.compare")
    options = parser.parse_args(argv)
    try:
        results = Results.load(options.folder)
    except ValueError as error:
        parser.error(str(error))
    write(results, analyse(results), options.folder)
    print(options.folder / "report.html")


def write(results: Results, analysis: Analysis, folder: Path) -> None:
    """Write `report.html`, `summary.md` and `figures/*.png`, each whole or not at all.

    Args:
        results: The comparison.
        analysis: Its numbers.
        folder: Where to; made if it is not there.
    """
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    mean_name = _mean_name(results)
    for name, picture in figures(results, analysis, mean_name):
        _replace(folder / "figures" / name, picture)
    context = _context(results, analysis, mean_name)
    for name in ("summary.md", "report.html"):
        _replace(folder / name, _TEMPLATES.get_template(name).render(context).encode())


def visible(text: str) -> str:
    """The text with every character that acts instead of showing (controls, ANSI, direction) written as its escape."""
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character)[0] == "C" and character not in "\n\t"
        else character
        for character in text
    )


def breakable(name: str) -> Markup:
    """A long name that may break after each of its marks."""
    return Markup("<wbr>").join(re.split(r"(?<=[:,=/])(?=\S)", visible(name)))


def number(value: float | None, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if known(value) else NOTHING


def signed(value: float | None) -> str:
    return f"{value:+.3f}".replace("-", "−") if known(value) else NOTHING


def bounds(interval: Interval | None, written: Callable[[float | None], str] = number) -> str:
    """The interval in brackets; empty where none is claimed."""
    ends = limits(interval)
    return f"[{', '.join(map(written, ends))}]" if ends else ""


def amount(value: float | None) -> str:
    """A count with at most three digits and its unit: 12,300,000 is `12.3 M`."""
    if not known(value):
        return NOTHING
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 10 * size or (unit != "k" and value >= size):
            return f"{value / size:.3g} {unit}"
    return f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    if not known(seconds):
        return NOTHING
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class Text(NamedTuple):
    """A cell of a table: the value, what stands small below it, and whether its interval excludes 0."""

    value: str
    below: str = ""
    sure: bool = False


class Column(NamedTuple):
    """A column of a table, with what its head means."""

    head: str
    about: str
    cell: Callable[[Row, Comparison | None], Text]


@dataclass(frozen=True)
class Table:
    """Rows by point of the grid, each an algorithm with its cells."""

    name: str
    title: str
    columns: list[Column]
    groups: list[tuple[str, list[tuple[str, list[Text]]]]]


def _estimate(interval: Interval | None) -> Text:
    return Text(number(interval.estimate), bounds(interval)) if interval else Text(NOTHING)


def _difference(interval: Interval | None) -> Text:
    if interval is None:
        return Text(NOTHING)
    return Text(signed(interval.estimate), bounds(interval, signed), sure(interval))


def sure(interval: Interval) -> bool:
    """Whether the interval of a difference lies on one side of 0."""
    ends = limits(interval)
    return ends is not None and ends[0] * ends[1] > 0


def _tables(results: Results, analysis: Analysis, mean: str) -> list[Table]:
    passes = sorted({k for row in analysis.rows for k in row.pass_at})
    quality = [
        Column("seeds", "Finished runs.", lambda r, _: Text(f"{r.seeds}", f"({r.failed} failed)" if r.failed else "")),
        Column(f"{mean}, last", "Mean reward of the final model's samples.", lambda r, _: _estimate(r.last)),
        Column(
            f"{mean}, best",
            "The same of the checkpoint of highest validation reward, the earliest of equals.",
            lambda r, _: _estimate(r.best),
        ),
        Column(
            "IQM", "Mean of the middle half of the scores, over seeds and questions.", lambda r, _: _estimate(r.iqm)
        ),
        *(
            Column(
                f"pass@{k}",
                f"Unbiased chance that one of {k} samples is right." if k > 1 else "Chance that a sample is right.",
                lambda r, _, k=k: Text(number(r.pass_at.get(k))),  # type: ignore[misc]
            )
            for k in passes
        ),
        Column("majority", "Reward of a question's commonest answer.", lambda r, _: _estimate(r.majority)),
        Column("greedy", "Reward of the completion without sampling.", lambda r, _: _estimate(r.greedy)),
        Column("area", "Mean height of the validation curve over the steps.", lambda r, _: _estimate(r.area)),
    ]
    versus = [
        Column(
            f"{mean}, last",
            "Difference of the final models, paired by seed.",
            lambda _, c: _difference(c.last if c else None),
        ),
        Column(f"{mean}, best", "Difference of the best checkpoints.", lambda _, c: _difference(c.best if c else None)),
        Column("IQM", "Difference of the middle halves.", lambda _, c: _difference(c.iqm if c else None)),
        Column("area", "Difference of the areas, paired by seed.", lambda _, c: _difference(c.area if c else None)),
        Column(
            "P(better)",
            "Probability that a run of the algorithm beats a run of the baseline; 0.5 is a draw.",
            lambda _, c: _estimate(c.improvement if c else None),
        ),
    ]
    cost = [
        Column("reached", "Seeds whose validation reward reached the threshold.", lambda r, _: _of(r.reached, r)),
        Column("steps", "To the threshold, median of the seeds.", lambda r, _: Text(amount(r.steps_to_threshold))),
        Column("tokens", "To the threshold.", lambda r, _: Text(amount(r.tokens_to_threshold))),
        Column("time", "To the threshold, of training.", lambda r, _: Text(duration(r.seconds_to_threshold))),
        Column("whole run", "Time of the training, median of the seeds.", lambda r, _: Text(duration(r.train_seconds))),
        Column("memory, GB", "Peak, median of the seeds.", lambda r, _: Text(number(r.peak_memory_gb, 2))),
    ]
    behaviour = [
        Column("collapsed", "Seeds that collapsed.", lambda r, _: _of(r.collapsed, r)),
        Column(
            "first sign",
            "Seeds in which each sign of trouble came first.",
            lambda r, _: Text(", ".join(f"{sign} {n}" for sign, n in r.first_signs.items()) or NOTHING),
        ),
        Column("drawdown", "Largest fall of the smoothed training reward.", lambda r, _: Text(number(r.max_drawdown))),
        Column("entropy", "First → last log, nats per token.", lambda r, _: _pair(r.entropy, " → ", 2)),
        Column("spikes", "Logs with a spike of the gradient norm.", lambda r, _: Text(number(r.gradient_spikes, 1))),
        Column(
            "ratio", "1st … 99th percentile of π/π_old, extremes over the run.", lambda r, _: _pair(r.ratio, " … ", 2)
        ),
        Column("outside", "Share of the tokens outside the bounds.", lambda r, _: Text(number(r.outside_bounds))),
        Column("KL", "From the starting model, nats per completion.", lambda r, _: Text(number(r.kl_to_start, 2))),
    ]
    comparisons = {(label(c.setting), c.algorithm): c for c in analysis.comparisons}

    def table(name: str, title: str, columns: list[Column], rows: list[Row]) -> Table:
        groups: dict[str, list[tuple[str, list[Text]]]] = {}
        for row in rows:
            point = label(row.setting)
            cells = [column.cell(row, comparisons.get((point, row.algorithm))) for column in columns]
            groups.setdefault(point, []).append((row.algorithm, cells))
        return Table(name, title, columns, list(groups.items()))

    compared = [row for row in analysis.rows if (label(row.setting), row.algorithm) in comparisons]
    return [
        table("quality", "Test questions", quality, analysis.rows),
        table("versus", f"Against {analysis.baseline}", versus, compared),
        table("cost", "Cost", cost, analysis.rows),
        table("stability", "Behaviour of the training", behaviour, analysis.rows),
        table(
            "summary",
            "Summary",
            [
                *quality[:3],
                versus[0]._replace(head="Δ last"),
                versus[-1],
                cost[1]._replace(head="steps to threshold"),
                behaviour[0],
            ],
            analysis.rows,
        ),
    ]


def _of(count: int, row: Row) -> Text:
    return Text(f"{count} of {row.seeds}" if row.seeds else NOTHING)


def _pair(values: tuple[float, float] | None, between: str, digits: int) -> Text:
    return Text(between.join(number(value, digits) for value in values) if values else NOTHING)


def _mean_name(results: Results) -> str:
    samples = {cell.last.samples for cell in results.cells if cell.last}
    return f"mean@{samples.pop()}" if len(samples) == 1 else "mean@k"


def _answer(analysis: Analysis, mean: str) -> list[str]:
    """What the verdicts come to, a sentence each."""
    finals = [row for row in analysis.rows if row.last and known(row.last.estimate)]
    if not finals:
        return ["No run finished, so there is nothing to compare."]
    top = max(finals, key=lambda row: row.last.estimate if row.last else 0.0)
    place = " at ".join(filter(None, (top.algorithm, label(top.setting))))
    lines = [f"Highest final {mean}: {' '.join(filter(None, _estimate(top.last)[:2]))}, {place}."]
    comparisons = analysis.comparisons
    if not comparisons:
        return [*lines, "There is no finished pair of runs to hold against each other."]
    if not any(limits(versus.last) for versus in comparisons):
        return [*lines, "No interval is claimed: one seed does not tell a difference from luck."]
    if len({label(versus.setting) for versus in comparisons}) == 1:
        return lines
    for algorithm in dict.fromkeys(versus.algorithm for versus in comparisons):
        intervals = [versus.last for versus in comparisons if versus.algorithm == algorithm]
        better = sum(sure(interval) and interval.estimate > 0 for interval in intervals)
        worse = sum(sure(interval) and interval.estimate < 0 for interval in intervals)
        lines.append(
            f"{algorithm} against {analysis.baseline}: better at {better} of {len(intervals)} points of the grid, "
            f"worse at {worse}, not told apart at {len(intervals) - better - worse}."
        )
    lines += [verdict for held in analysis.overall for verdict in held.verdicts]
    return [*lines, "Each is a 95 % interval of its own: of twenty, one misses by luck alone."]


def _disagreements(results: Results, analysis: Analysis) -> dict[str, Any] | None:
    """Questions on which the first seed's final models differ, widest first, where the algorithms differ most."""
    by_size = sorted(analysis.comparisons, key=lambda versus: -abs(versus.last.estimate))
    for setting in [versus.setting for versus in by_size]:
        for seed in results.seeds:
            models = [
                (cell.algorithm, cell.last)
                for algorithm in results.algorithms
                for cell in results.done(algorithm, setting)
                if cell.seed == seed and cell.last and cell.last.completions
            ]
            if len(models) < 2 or not results.questions:
                continue
            scores = list(zip(*(last.scores for _, last in models), strict=True))
            spread = [max(of_question) - min(of_question) for of_question in scores]
            chosen = sorted((q for q in range(len(spread)) if spread[q] > 0), key=lambda q: -spread[q])
            shown = [
                {
                    **{name: _cut(text) for name, text in results.questions[q].items()},
                    "answers": [
                        (algorithm, last.scores[q], _cut(last.completions[q]))
                        for algorithm, last in models
                        if last.completions
                    ],
                }
                for q in chosen[:QUESTIONS]
            ]
            return {
                "point": label(setting),
                "seed": seed,
                "samples": models[0][1].samples,
                "differing": len(chosen),
                "asked": len(spread),
                "questions": shown,
            }
    return None


def _cut(text: str) -> tuple[str, int]:
    """The start of a text, and how many characters are left out."""
    return text[:CHARACTERS], max(0, len(text) - CHARACTERS)


def _fields(algorithms: list[str]) -> list[tuple[str, list[str]]]:
    """What differs between the algorithms: each field with its value for each of them."""
    parsed = []
    for algorithm in algorithms:
        name, _, options = algorithm.partition(":")
        pairs = (option.partition("=") for option in options.split(",") if option)
        parsed.append({"algorithm": name} | {field: value for field, _, value in pairs})
    fields = dict.fromkeys(field for given in parsed for field in given)
    return [(field, [given.get(field, "as in the recipe") for given in parsed]) for field in fields]


def _curves(results: Results) -> dict[str, Any]:
    """The curves for the page's script, numbers with four digits."""
    points = []
    for setting in results.settings():
        cells = [results.done(algorithm, setting) for algorithm in results.algorithms]
        panels = [[curve(of_algorithm, panel.metric) for of_algorithm in cells] for panel in PANELS]
        if any(line for panel in panels for line in panel):
            shown = [[line and _short(dataclasses.asdict(line)) for line in panel] for panel in panels]
            points.append({"label": label(setting), "panels": shown})
    return {
        "algorithms": results.algorithms,
        "dashes": DASHES,
        "panels": [dataclasses.asdict(panel) for panel in PANELS],
        "points": points,
    }


def _short(line: dict[str, list[float] | None]) -> dict[str, list[float] | None]:
    return {name: values and [float(f"{value:.4g}") for value in values] for name, values in line.items()}


def _context(results: Results, analysis: Analysis, mean: str) -> dict[str, Any]:
    script = (TEMPLATES / "report.js").read_text()
    curves = _curves(results)
    claimed = any(limits(row.last) for row in analysis.rows)
    intervals = [interval for versus in analysis.comparisons for interval in (versus.last, versus.best) if interval]
    edges = [abs(edge) for i in intervals for edge in (i.estimate, i.low, i.high) if edge is not None and known(edge)]
    verdicts: dict[str, list[Comparison]] = {}
    for versus in sorted(analysis.comparisons, key=lambda versus: -versus.last.estimate):
        verdicts.setdefault(label(versus.setting), []).append(versus)
    points = [label(setting) for setting in results.settings()]
    collapsed = {(label(row.setting), row.algorithm) for row in analysis.rows if row.collapsed}
    return {
        "results": results,
        "analysis": analysis,
        "mean": mean,
        "recipe": Path(results.recipe).stem,
        "start": results.start and sum(results.start.scores) / max(1, len(results.start.scores)),
        "answer": _answer(analysis, mean),
        "verdicts": {point: verdicts[point] for point in points if point in verdicts},
        "reach": max(edges, default=0.0) or 1.0,
        "unfinished": [cell for cell in results.cells if cell.status != "done"],
        "tables": {table.name: table for table in _tables(results, analysis, mean)},
        "signs": [
            (cell, signs)
            for cell in results.cells
            if (label(cell.setting), cell.algorithm) in collapsed and (signs := analysis.signs.get(cell.folder))
        ],
        "claimed": claimed,
        "rules": _RULES + (_INTERVALS if claimed else ["Intervals: none, one seed claims none."]),
        "curves": curves,
        "banded": any(line and line["low"] for at in curves["points"] for panel in at["panels"] for line in panel),
        "points_drawn": POINTS,
        "heat": heat_maps(results, analysis, mean),
        "samples": _disagreements(results, analysis),
        "fields": _fields(results.algorithms),
        "collapse": (stability.__doc__ or "").strip(),
        "palette": PALETTE,
        "place": {algorithm: place % len(PALETTE) for place, algorithm in enumerate(results.algorithms)},
        "css": Markup((TEMPLATES / "report.css").read_text()),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }


def _markdown(text: str) -> str:
    """The text on one line of a table, its marks taken literally."""
    return re.sub(r"([\\`*_\[\]|<>])", r"\\\1", " ".join(text.split()))


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_bytes(content)
    temporary.replace(path)


_TEMPLATES = Environment(
    loader=FileSystemLoader(TEMPLATES),
    autoescape=select_autoescape(["html"]),
    finalize=lambda value: visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {f.__name__: f for f in (number, signed, bounds, duration, label, breakable)} | {
    "md": _markdown,
    "embedded": lambda value: htmlsafe_json_dumps(value, allow_nan=False, separators=(",", ":")),
}
