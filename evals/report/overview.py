"""The table below the verdict: the difference of every algorithm at every grid point."""

from __future__ import annotations

from dataclasses import dataclass

from ..shared.results import label
from .analysis import Analysis
from .differences import PointDifference
from .verdicts import outcome


@dataclass(frozen=True)
class Overview:
    """Differences of the final reward, algorithms × grid points. The longer side gives the rows.

    Args:
        by_algorithm: Whether the rows are algorithms and the columns grid points. Otherwise it is the other way round.
        rows: Names of the rows. A comparison without a grid has a single grid point with an empty name.
        columns: Names of the columns.
        cells: By row, then by column: the difference and its outcome, or None if there is no difference.
    """

    by_algorithm: bool
    rows: list[str]
    columns: list[str]
    cells: list[list[tuple[PointDifference, str] | None]]


def overview(analysis: Analysis) -> Overview:
    """Arrange the differences of a report in a table."""
    found = {(one.algorithm, label(one.setting)): one for one in analysis.differences}
    algorithms = list(dict.fromkeys(algorithm for algorithm, _ in found))
    points = list(dict.fromkeys(point for _, point in found))
    by_algorithm = len(algorithms) >= len(points)
    rows, columns = (algorithms, points) if by_algorithm else (points, algorithms)

    def cell(row: str, column: str) -> tuple[PointDifference, str] | None:
        difference = found.get((row, column) if by_algorithm else (column, row))
        return (difference, outcome(difference.last)) if difference else None

    return Overview(by_algorithm, rows, columns, [[cell(row, column) for column in columns] for row in rows])
