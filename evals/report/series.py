"""What a report draws, as numbers: curves with bands over seeds, and heat maps over the grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard

from ..shared.estimates import Interval
from .analysis import Analysis, Row
from .results import Cell, Results, label

POINTS = 300  # of a curve: more cannot be seen and make the file large

# (light, dark) by the place of the algorithm; the baseline is grey. Told apart without red and green, dashes beside.
PALETTE = (
    ("#565d6b", "#aab2c0"),
    ("#0b63c5", "#62acff"),
    ("#c04a00", "#ff9555"),
    ("#007a5e", "#3ccb9d"),
    ("#a03c88", "#ea96cf"),
    ("#846500", "#dcbc45"),
)
DASHES = ("5 3", "", "2 2", "8 2 2 2", "1 3", "10 4")


@dataclass(frozen=True)
class Panel:
    """A metric that is drawn over the optimiser steps; `anchor` is a value that its axis always shows."""

    metric: str
    title: str
    unit: str
    anchor: float


# no loss: GBPO's starts elsewhere than GRPO's, so that the two on one axis would only mislead
PANELS = (
    Panel("eval_reward", "Validation reward", "mean of the samples", 0.0),
    Panel("reward", "Training reward", "mean of the logged steps", 0.0),
    Panel("entropy", "Entropy", "nats per token", 0.0),
    Panel("grad_norm", "Gradient norm", "before clipping", 0.0),
    Panel("gbpo/outside_bounds", "Outside the bounds", "share of tokens", 0.0),
    Panel("gbpo/ratio_p01", "Ratio, 1st percentile", "π/π_old of the tokens", 1.0),
    Panel("gbpo/ratio_p99", "Ratio, 99th percentile", "π/π_old of the tokens", 1.0),
    Panel("completions/mean_length", "Length", "tokens per completion", 0.0),
)


@dataclass(frozen=True)
class Curve:
    """A metric over the optimiser steps: mean, lowest and highest of the seeds; one seed has no band."""

    steps: list[float]
    mean: list[float]
    low: list[float] | None
    high: list[float] | None


def known(value: float | None) -> TypeGuard[float]:
    """Whether there is a number to show."""
    return value is not None and math.isfinite(value)


def limits(interval: Interval | None) -> tuple[float, float] | None:
    """The two ends of an interval; None where none is claimed."""
    if interval is None or not known(interval.low) or not known(interval.high):
        return None
    return interval.low, interval.high


def curve(cells: list[Cell], metric: str) -> Curve | None:
    """The curve of a metric over the seeds of one algorithm, at the steps that all of them logged; None for no step."""
    runs = [
        {
            step: value
            for step, value in zip(cell.series.get("step", []), cell.series.get(metric, []), strict=False)
            if known(step) and known(value)
        }
        for cell in cells
    ]
    runs = [run for run in runs if run]
    steps = sorted(set.intersection(*map(set, runs))) if runs else []
    if not steps:
        return None
    steps = steps[:: -math.ceil(len(steps) / POINTS)][::-1]  # from the end: the last one stays
    values = [[run[step] for run in runs] for step in steps]
    return Curve(
        steps=steps,
        mean=[sum(seeds) / len(seeds) for seeds in values],
        low=[min(seeds) for seeds in values] if len(runs) > 1 else None,
        high=[max(seeds) for seeds in values] if len(runs) > 1 else None,
    )


@dataclass(frozen=True)
class Spot:
    """One cell of a heat map: its number, None where there is none, the point of the grid and the row it is from."""

    value: float | None
    point: str
    row: Row | None


@dataclass(frozen=True)
class HeatMap:
    """One number of one algorithm over the grid.

    Args:
        algorithm: Whose number it is.
        facet: The other fields of the grid where more than two of them vary; else empty.
        row_field: Field of the rows; None for a single row.
        column_field: Field of the columns.
        rows: Its values.
        columns: Its values.
        spots: By row, then column.
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
    """The maps of one quantity, which share their colours: from `low` to `high`, or on either side of 0."""

    name: str
    title: str
    maps: list[HeatMap]
    low: float
    high: float
    diverging: bool

    def strength(self, value: float) -> float:
        """Of the colour of a value, 0 to 1; on a diverging scale by its distance from 0."""
        if self.diverging:
            return abs(value) / self.high if self.high else 0.0
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5


def heat_maps(results: Results, analysis: Analysis, mean_name: str) -> list[HeatMaps]:
    """Final reward, collapsed share and difference to the baseline over the two fields that have the most values.

    Args:
        results: The comparison.
        analysis: Its numbers.
        mean_name: What the final reward is called, for example `"mean@8"`.

    Returns:
        A collection for each quantity that has numbers; none where no field of the grid varies.
    """
    ahead = {(label(versus.setting), versus.algorithm): versus.last.estimate for versus in analysis.comparisons}
    others = [algorithm for algorithm in results.algorithms if algorithm != analysis.baseline]

    def final(row: Row) -> float | None:
        return row.last.estimate if row.last else None

    def collapsed(row: Row) -> float | None:
        return row.collapsed / row.seeds if row.seeds else None

    def difference(row: Row) -> float | None:
        return ahead.get((label(row.setting), row.algorithm))

    found = []
    for name, title, algorithms, number in (
        ("final", f"Final {mean_name}", results.algorithms, final),
        ("collapsed", "Share of the seeds that collapsed", results.algorithms, collapsed),
        ("difference", f"Difference of the final {mean_name} to {analysis.baseline}", others, difference),
    ):
        maps = [drawn for algorithm in algorithms for drawn in _maps_of(results, analysis, algorithm, number)]
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
    results: Results, analysis: Analysis, algorithm: str, number: Callable[[Row], float | None]
) -> list[HeatMap]:
    """The maps of one algorithm, one for each combination of the fields that are no axis."""
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
    rows = {label(row.setting): row for row in analysis.rows if row.algorithm == algorithm}

    def spot(point: dict[str, Any]) -> Spot:
        name = label({field: point[field] for field in fields})
        row = rows.get(name)
        value = number(row) if row else None
        return Spot(value if known(value) else None, name, row)

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
