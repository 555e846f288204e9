"""Heat maps over the grid: one number per algorithm and grid point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..shared.estimates import is_finite
from ..shared.results import Results, label
from .analysis import Analysis, PointSummary


@dataclass(frozen=True)
class Spot:
    """One cell of a heat map.

    Args:
        value: Number to draw, or None if there is none.
        point: Name of the grid point.
        summary: The algorithm at this grid point, or None if the grid has no such point.
        coloured: Whether the colour shows the value. A difference without significance stays neutral.
    """

    value: float | None
    point: str
    summary: PointSummary | None
    coloured: bool


@dataclass(frozen=True)
class HeatMap:
    """One number of one algorithm over two fields of the grid.

    Args:
        algorithm: The algorithm.
        facet: Values of the remaining fields if more than two vary; otherwise empty.
        row_field: Field of the rows; None if there is a single row.
        column_field: Field of the columns.
        rows: Values of the row field.
        columns: Values of the column field.
        spots: Spots by row, then by column.
    """

    algorithm: str
    facet: str
    row_field: str | None
    column_field: str
    rows: list[Any]
    columns: list[Any]
    spots: list[list[Spot]]


@dataclass(frozen=True)
class HeatMaps:
    """The heat maps of one quantity, which share a colour scale.

    Args:
        name: Short name, used in file names.
        title: Title.
        maps: One map per algorithm and facet.
        low: Value at the low end of the colour scale.
        high: Value at the high end.
        diverging: Whether the scale has two colours, one for values below 0 and one for values above 0.
    """

    name: str
    title: str
    maps: list[HeatMap]
    low: float
    high: float
    diverging: bool

    def strength(self, value: float) -> float:
        """Colour strength of a value, from 0 to 1. On a diverging scale, it is the distance from 0."""
        if self.diverging:
            return abs(value) / self.high if self.high else 0.0
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5


def heat_maps(results: Results, analysis: Analysis, mean_name: str) -> list[HeatMaps]:
    """Make heat maps of the final reward, the fraction of collapsed seeds and the difference to the baseline.

    The axes are the two fields with the most values.

    Args:
        results: The comparison.
        analysis: Its numbers.
        mean_name: Name of the final reward, for example `"mean@8"`.

    Returns:
        One entry per quantity that has numbers. Empty if no field of the grid varies.
    """
    differences = {(label(d.setting), d.algorithm): d.last for d in analysis.differences}
    others = [algorithm for algorithm in results.algorithms if algorithm != analysis.baseline]

    def final(summary: PointSummary) -> float | None:
        return summary.last.estimate if summary.last else None

    def collapsed(summary: PointSummary) -> float | None:
        return summary.collapsed / summary.seeds if summary.seeds else None

    def difference(summary: PointSummary) -> float | None:
        found = differences.get((label(summary.setting), summary.algorithm))
        return found.estimate if found else None

    def significant(summary: PointSummary) -> bool:
        found = differences.get((label(summary.setting), summary.algorithm))
        return found is not None and found.excludes_zero

    def always(summary: PointSummary) -> bool:
        return True

    found = []
    to_baseline = f"Difference of the final {mean_name} to {analysis.baseline}, coloured if significant"
    for name, title, algorithms, number, coloured in (
        ("final", f"Final {mean_name}", results.algorithms, final, always),
        ("collapsed", "Fraction of seeds that collapsed", results.algorithms, collapsed, always),
        ("difference", to_baseline, others, difference, significant),
    ):
        maps = [drawn for algorithm in algorithms for drawn in _maps_of(results, analysis, algorithm, number, coloured)]
        values = [spot.value for drawn in maps for row in drawn.spots for spot in row if spot.value is not None]
        if not values:
            continue
        low, high = (0.0, 1.0) if number is collapsed else (min(values), max(values))
        if number is difference:
            high = max(map(abs, values))
            low = -high
        found.append(HeatMaps(name, title, maps, low, high, diverging=number is difference))
    return found


def _maps_of(
    results: Results,
    analysis: Analysis,
    algorithm: str,
    number: Callable[[PointSummary], float | None],
    coloured: Callable[[PointSummary], bool],
) -> list[HeatMap]:
    """The maps of one algorithm, one per combination of the fields that are not an axis."""
    settings = results.settings()
    fields: dict[str, list[Any]] = {}
    for setting in settings:
        for field, value in setting.items():
            if value not in fields.setdefault(field, []):
                fields[field].append(value)
    varying = sorted((field for field in fields if len(fields[field]) > 1), key=lambda field: -len(fields[field]))
    if not varying:
        return []
    column_field, row_field = varying[0], varying[1] if len(varying) > 1 else None
    summaries = {label(s.setting): s for s in analysis.summaries if s.algorithm == algorithm}

    def spot(point: dict[str, Any]) -> Spot:
        name = label({field: point[field] for field in fields})
        summary = summaries.get(name)
        value = number(summary) if summary else None
        return Spot(value if is_finite(value) else None, name, summary, summary is not None and coloured(summary))

    facets: list[dict[str, Any]] = []
    for setting in settings:
        facet = {field: value for field, value in setting.items() if field not in varying[:2]}
        if facet not in facets:
            facets.append(facet)
    return [
        HeatMap(
            algorithm=algorithm,
            facet=label({field: value for field, value in facet.items() if field in varying}),
            row_field=row_field,
            column_field=column_field,
            rows=fields[row_field] if row_field else [None],
            columns=fields[column_field],
            spots=[
                [
                    spot(facet | {column_field: column} | ({row_field: value} if row_field else {}))
                    for column in fields[column_field]
                ]
                for value in (fields[row_field] if row_field else [None])
            ],
        )
        for facet in facets
    ]
