"""Write the report of a comparison: `report.html`, `summary.md` and `figures/*.png`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from gbpo.shared.pages.formatting import breakable
from gbpo.shared.pages.palette import PALETTE
from gbpo.shared.pages.render import CHARTS, assets, environment
from gbpo.shared.write_whole import write_whole

from ..shared.estimates import BOOTSTRAP_T, CLOPPER_PEARSON, STUDENT_T, is_finite
from ..shared.results import FILE, Results, label
from .analysis import Analysis
from .answer import answer, details, warning
from .curves import MAX_POINTS, PANELS, curve
from .differences import PointDifference
from .differing_samples import differing_samples
from .figures import FIGURE_NAMES, figures
from .formatting import bounds, markdown, signed
from .heat_maps import heat_maps
from .overview import overview
from .run_numbers import mean_name, reward_metrics
from .stability import COLLAPSES, SIGNS
from .tables import tables
from .verdicts import THRESHOLD_SHARE

TEMPLATES = Path(__file__).parent / "templates"

_RULES = [
    "Validation reward, in areas, thresholds and best grid points: the reward of the test on the validation questions. "
    "If the runs did not log it, the reward that they trained on.",
    f"Threshold: {THRESHOLD_SHARE:.0%} of the way from the first validation reward, averaged over all runs at the grid "
    "point, to the highest final validation reward of an algorithm, averaged over its seeds.",
    "Area: the mean validation reward over the run.",
    "Best checkpoint: the one with the highest reward on the validation questions. Ties go to the earliest.",
    "Differences to the baseline use the seeds that both algorithms finished.",
]
_INTERVALS = [
    f"95 % intervals of means, areas and their differences: {STUDENT_T}. Differences are paired by seed.",
    "Intervals of shares are cut at 0 and 1, and those of their differences at −1 and 1. A reward counts as a share if "
    "all of its values in the comparison lie between 0 and 1.",
    "The intervals of the differences in a column are corrected for their number by Holm's method (Holm 1979), except "
    "P(better). Without any true difference, the chance that one or more of a column exclude 0 is 5 %. A corrected "
    "interval agrees with this decision. The intervals of a column are not a joint confidence region. Runs that two "
    "grid points share count once.",
    f"95 % intervals of interquartile means and their differences: {BOOTSTRAP_T}.",
    f"95 % intervals of P(better): {CLOPPER_PEARSON}, with the number of wins rounded outwards.",
]
_NO_INTERVALS = ["There are no confidence intervals, because they need two finished seeds."]


def write(results: Results, analysis: Analysis, folder: Path) -> None:
    """Write `report.html`, `summary.md` and `figures/*.png`.

    Args:
        results: The comparison.
        analysis: The numbers of the comparison.
        folder: Folder to write to. It is created if it does not exist.

    Raises:
        ValueError: The report cannot be written.
    """
    mean = mean_name(results)
    context = _context(results, analysis, mean)
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        earlier = {path for name in FIGURE_NAMES for path in (folder / "figures").glob(name)}
        for name, picture in figures(results, analysis, mean):
            write_whole(folder / "figures" / name, picture)
            earlier.discard(folder / "figures" / name)
        for path in earlier:  # more grid points give the figures other names
            path.unlink()
        for name in ("summary.md", "report.html"):
            write_whole(folder / name, _TEMPLATES.get_template(name).render(context))
    except OSError as error:
        raise ValueError(
            f"The report cannot be written into {str(folder)!r} ({error.strerror}). The results are kept in {FILE}. "
            f"Make the folder writable or free some space, then write gbpo report {folder}."
        ) from None


def _fields(algorithms: list[str]) -> list[tuple[str, list[str]]]:
    """The fields that differ between the algorithms, and the value of each field for each algorithm."""
    parsed = []
    for algorithm in algorithms:
        name, _, options = algorithm.partition(":")
        pairs = (option.partition("=") for option in options.split(",") if option)
        parsed.append({"algorithm": name} | {field: value for field, _, value in pairs})
    fields = dict.fromkeys(field for given in parsed for field in given)
    return [(field, [given.get(field, "as in the recipe") for given in parsed]) for field in fields]


def _curves(results: Results) -> dict[str, Any]:
    """Curves for the script of the page, with four significant digits."""
    points = []
    for setting in results.settings():
        cells = [results.done(algorithm, setting) for algorithm in results.algorithms]
        panels = [[curve(of_algorithm, panel.metric) for of_algorithm in cells] for panel in PANELS]
        if any(line for panel in panels for line in panel):
            shown = [[line and _short(dataclasses.asdict(line)) for line in panel] for panel in panels]
            points.append({"label": label(setting), "panels": shown})
    return {
        "algorithms": results.algorithms,
        "colours": len(PALETTE),
        "panels": [dataclasses.asdict(panel) for panel in PANELS],
        "points": points,
    }


def _short(line: dict[str, list[float] | None]) -> dict[str, list[float] | None]:
    return {name: values and [float(f"{value:.4g}") for value in values] for name, values in line.items()}


def _context(results: Results, analysis: Analysis, mean: str) -> dict[str, Any]:
    curves = _curves(results)
    has_intervals = any(summary.last and summary.last.ends for summary in analysis.summaries)
    intervals = [difference.last for difference in analysis.differences]
    edges = [abs(edge) for i in intervals for edge in (i.estimate, i.low, i.high) if is_finite(edge)]
    verdicts: dict[str, list[PointDifference]] = {}
    for difference in sorted(analysis.differences, key=lambda difference: -difference.last.estimate):
        verdicts.setdefault(label(difference.setting), []).append(difference)
    points = [label(setting) for setting in results.settings()]
    training, validation = reward_metrics(results)
    judged = f"Collapses and drawdowns are read from {training} and, in the validations, {validation}."
    collapsed = {(label(s.setting), s.algorithm) for s in analysis.summaries if s.collapsed}
    return {
        "results": results,
        "analysis": analysis,
        "mean": mean,
        "recipe": Path(results.recipe).stem,
        "start": results.start and sum(results.start.scores) / max(1, len(results.start.scores)),
        "answer": answer(analysis, mean),
        "warning": warning(analysis),
        "overview": overview(analysis),
        "details": details(analysis, mean),
        "corrected": sum(difference.p_value is not None for difference in analysis.differences) > 1,
        "verdicts": {point: verdicts[point] for point in points if point in verdicts},
        "reach": max(edges, default=0.0) or 1.0,
        "unfinished": [cell for cell in results.cells if cell.status != "done"],
        "tables": tables(analysis, mean),
        "signs": [
            (cell, signs)
            for cell in results.cells
            if (label(cell.setting), cell.algorithm) in collapsed and (signs := analysis.signs.get(cell.folder))
        ],
        "has_intervals": has_intervals,
        "rules": [*_RULES, judged] + (_INTERVALS if has_intervals else _NO_INTERVALS),
        "curves": curves,
        "banded": any(line and line["low"] for at in curves["points"] for panel in at["panels"] for line in panel),
        "max_points": MAX_POINTS,
        "heat": heat_maps(results, analysis, mean),
        "samples": differing_samples(results, analysis),
        "fields": _fields(results.algorithms),
        "sign_definitions": SIGNS,
        "collapses": COLLAPSES,
        "place": {algorithm: place % len(PALETTE) for place, algorithm in enumerate(results.algorithms)},
        "data": curves,
        **assets(TEMPLATES / "report.css", CHARTS, TEMPLATES / "report.js"),
    }


_TEMPLATES = environment(TEMPLATES)
_TEMPLATES.filters |= {f.__name__: f for f in (signed, bounds, label)} | {
    "breakable_attribute": lambda name: breakable(name, "&#8203;"),  # a zero-width space
    "bounds_signed": lambda interval: bounds(interval, signed),
    "md": markdown,
}
