"""Training curves over the optimiser steps, averaged over seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..shared.estimates import is_finite
from ..shared.results import Cell

MAX_POINTS = 300  # per curve; more points would not be visible and would enlarge the page


@dataclass(frozen=True)
class Panel:
    """A metric drawn over the optimiser steps.

    Args:
        metric: Name of the metric in `Cell.series`.
        title: Title of the panel.
        unit: Unit of the metric.
        anchor: Value that the vertical axis always includes.
    """

    metric: str
    title: str
    unit: str
    anchor: float


# The loss is not drawn: GBPO's and GRPO's losses are different quantities.
PANELS = (
    Panel("eval_reward", "Validation reward", "mean of the samples", 0.0),
    Panel("reward", "Training reward", "mean of the logged steps", 0.0),
    Panel("entropy", "Entropy", "nats per token", 0.0),
    Panel("grad_norm", "Gradient norm", "before clipping", 0.0),
    Panel("gbpo/outside_bounds", "Outside the bounds", "fraction of tokens", 0.0),
    Panel("gbpo/ratio_p01", "Ratio, 1st percentile", "π/π_old of the tokens", 1.0),
    Panel("gbpo/ratio_p99", "Ratio, 99th percentile", "π/π_old of the tokens", 1.0),
    Panel("completions/mean_length", "Length", "tokens per completion", 0.0),
)


@dataclass(frozen=True)
class Curve:
    """A metric over the optimiser steps: mean, lowest and highest seed. With one seed, `low` and `high` are None."""

    steps: list[float]
    mean: list[float]
    low: list[float] | None
    high: list[float] | None


def curve(cells: list[Cell], metric: str) -> Curve | None:
    """Average a metric over seeds.

    Args:
        cells: Runs of one algorithm at one grid point.
        metric: Name of the metric in `Cell.series`.

    Returns:
        The curve at the steps that all runs logged, or None if there are none. Runs that never logged the metric are
        left out.
    """
    runs = [
        {
            step: value
            for step, value in zip(cell.series.get("step", []), cell.series.get(metric, []), strict=False)
            if is_finite(step) and is_finite(value)
        }
        for cell in cells
    ]
    runs = [run for run in runs if run]
    steps = sorted(set.intersection(*map(set, runs))) if runs else []
    if not steps:
        return None
    steps = steps[:: -math.ceil(len(steps) / MAX_POINTS)][::-1]  # counted from the end, to keep the last step
    values = [[run[step] for run in runs] for step in steps]
    return Curve(
        steps=steps,
        mean=[sum(seeds) / len(seeds) for seeds in values],
        low=[min(seeds) for seeds in values] if len(runs) > 1 else None,
        high=[max(seeds) for seeds in values] if len(runs) > 1 else None,
    )
