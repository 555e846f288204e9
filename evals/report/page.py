"""Write the report of a comparison: `report.html`, `summary.md` and `figures/*.png`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from gbpo.shared.pages.palette import PALETTE
from gbpo.shared.pages.render import CHARTS, assets, environment
from gbpo.shared.write_whole import write_whole

from ..shared.estimates import BOOTSTRAP_T, CLOPPER_PEARSON, STUDENT_T, is_finite
from ..shared.results import Results, label
from .analysis import Analysis, PointDifference
from .answer import answer
from .curves import MAX_POINTS, PANELS, curve
from .differing_samples import differing_samples
from .figures import figures
from .formatting import bounds, markdown, signed
from .heat_maps import heat_maps
from .stability import COLLAPSES, SIGNS
from .tables import tables

TEMPLATES = Path(__file__).parent / "templates"

_RULES = [
    "Threshold: the final validation reward of the baseline at the same grid point, averaged over its seeds.",
    "Best checkpoint: the one with the highest validation reward. Ties go to the earliest.",
    "Differences to the baseline use the seeds that both algorithms finished.",
]
_INTERVALS = [
    f"95 % intervals of means, areas and their differences: {STUDENT_T}. Differences are paired by seed.",
    f"95 % intervals of interquartile means and their differences: {BOOTSTRAP_T}.",
    f"95 % intervals of P(better): {CLOPPER_PEARSON}, with the number of wins rounded outwards.",
]
_NO_INTERVALS = ["There are no confidence intervals, because there is only one seed."]


def write(results: Results, analysis: Analysis, folder: Path) -> None:
    """Write `report.html`, `summary.md` and `figures/*.png`.

    Args:
        results: The comparison.
        analysis: The numbers of the comparison.
        folder: Folder to write to. It is created if it does not exist.
    """
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    mean_name = _mean_name(results)
    for name, picture in figures(results, analysis, mean_name):
        write_whole(folder / "figures" / name, picture)
    context = _context(results, analysis, mean_name)
    for name in ("summary.md", "report.html"):
        write_whole(folder / name, _TEMPLATES.get_template(name).render(context))


def _mean_name(results: Results) -> str:
    samples = {cell.last.samples for cell in results.cells if cell.last}
    return f"mean@{samples.pop()}" if len(samples) == 1 else "mean@k"


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
    intervals = [interval for d in analysis.differences for interval in (d.last, d.best) if interval]
    edges = [abs(edge) for i in intervals for edge in (i.estimate, i.low, i.high) if is_finite(edge)]
    verdicts: dict[str, list[PointDifference]] = {}
    for difference in sorted(analysis.differences, key=lambda difference: -difference.last.estimate):
        verdicts.setdefault(label(difference.setting), []).append(difference)
    points = [label(setting) for setting in results.settings()]
    collapsed = {(label(s.setting), s.algorithm) for s in analysis.summaries if s.collapsed}
    return {
        "results": results,
        "analysis": analysis,
        "mean": mean,
        "recipe": Path(results.recipe).stem,
        "start": results.start and sum(results.start.scores) / max(1, len(results.start.scores)),
        "answer": answer(analysis, mean),
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
        "rules": _RULES + (_INTERVALS if has_intervals else _NO_INTERVALS),
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
_TEMPLATES.filters |= {f.__name__: f for f in (signed, bounds, label)} | {"md": markdown}
