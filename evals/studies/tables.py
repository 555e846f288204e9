"""What the tables of the studies have in common: measures of finished runs, and differences with corrected p-values.

`validation` is the name of the logged share of right completions in the validations of a run.

- A run **ends below its start** if its last validation is below its first.
- A run **collapses** if it shows the sign "fall" of `evals.report.stability` in its validations: two in a row are below
  half of the best one so far.
"""

from collections.abc import Hashable, Mapping, Sequence
from statistics import fmean
from typing import TypeVar

from ..report.stability import collapsed, signs
from ..shared.estimates import Interval, area_under_curve, mean_interval, pass_at_k
from ..shared.holm import corrected_p_values
from ..shared.results import Cell

Key = TypeVar("Key", bound=Hashable)

HEAD = "| loss | final mean@16 | − GRPO | p, Holm | final pass@16 | highest validation | area | entropy |"


def curve(validation: str, cell: Cell) -> tuple[list[float], list[float]]:
    """Steps and shares of right completions of the validations of a run."""
    pairs = zip(cell.series["step"], cell.series[validation], strict=True)
    found = [(step, value) for step, value in pairs if step is not None and value is not None]
    return [step for step, _ in found], [value for _, value in found]


def rights(cells: Sequence[Cell]) -> list[float]:
    """Final mean@16 of each run."""
    return [fmean(cell.last.scores) for cell in cells if cell.last]


def row(validation: str, cells: Sequence[Cell]) -> list[str]:
    """Final mean@16, pass@16, highest validation, area under the validation, and entropy at the end of some runs."""
    mean = mean_interval(rights(cells)).within(0, 1)
    assert mean.low is not None and mean.high is not None
    curves = [curve(validation, cell) for cell in cells]
    ends = [next(value for value in reversed(cell.series["entropy"]) if value is not None) for cell in cells]
    return [
        f"{mean.estimate:.2f} [{mean.low:.2f}, {mean.high:.2f}]",
        f"{fmean(pass_at_k(16, cell.last.correct, 16) for cell in cells if cell.last):.2f}",
        f"{fmean(max(values) for _, values in curves):.2f}",
        f"{fmean(area_under_curve(*one) for one in curves):.2f}",
        f"{fmean(ends):.2f}",
    ]


def below_start(validation: str, cells: Sequence[Cell]) -> int:
    """Number of runs whose last validation is below their first."""
    return sum(values[-1] < values[0] for _, values in (curve(validation, cell) for cell in cells))


def collapses(validation: str, cells: Sequence[Cell]) -> int:
    """Number of runs whose share of right completions in the validations has fallen."""
    curves = [curve(validation, cell) for cell in cells]
    return sum(collapsed(signs({"step": steps, "eval_reward": values})) for steps, values in curves)


def written(differences: Mapping[Key, Interval]) -> dict[Key, list[str]]:
    """Each difference with its interval, and its p-value, corrected for all of them by Holm's method."""
    p_values = corrected_p_values([found.p_value for found in differences.values()])
    return {
        key: [
            f"{found.estimate:+.2f} [{found.low:+.2f}, {found.high:+.2f}]",
            "< 0.001" if p is not None and p < 0.0005 else f"{p:.3f}",
        ]
        for (key, found), p in zip(differences.items(), p_values, strict=True)
    }
