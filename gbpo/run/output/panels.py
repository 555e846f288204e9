"""What is drawn of a run: the panels with their metrics, and the values of each line over the optimiser steps."""

from dataclasses import dataclass, field
from typing import Any

from .pace import RATE, by_generation, phases_of

Row = dict[str, Any]

_SPREAD = {"reward": "reward_std"}  # metric → the standard deviation around it


@dataclass(frozen=True)
class Line:
    """A metric over the optimiser steps.

    Args:
        name: What the line shows.
        steps: The optimiser steps that have a value.
        mean: The values.
        low, high: The values minus and plus their standard deviation, if there is one.
    """

    name: str
    steps: list[int]
    mean: list[float]
    low: list[float] | None = None
    high: list[float] | None = None


@dataclass(frozen=True)
class Drawing:
    """A panel with its lines.

    Args:
        title: Title of the panel.
        unit: Unit of the values.
        lines: The lines, at least one.
        stacked: Whether the lines are drawn above each other, as areas that add up.
    """

    title: str
    unit: str
    lines: list[Line]
    stacked: bool = False


@dataclass(frozen=True)
class _Panel:
    title: str
    unit: str
    series: dict[str, str] = field(default_factory=dict)  # metric → name of the line; empty: they depend on the run
    per_generation: bool = False
    stacked: bool = False


_PANELS = (
    _Panel("reward", "per completion", {"reward": "training", "eval_reward": "evaluation"}),
    _Panel("rewards by name", "mean"),
    _Panel("length", "tokens", {"completions/mean_length": "mean", "completions/max_length": "longest"}),
    _Panel(
        "ratio",
        "fraction of tokens",
        {
            "gbpo/outside_bounds": "outside the bounds",
            "gbpo/overshoot": "past the bound of the target",
            "clip_ratio/region_mean": "clipped by GRPO",
        },
    ),
    _Panel("entropy", "nats per token", {"entropy": "training"}),
    _Panel("KL divergence", "nats per token", {"kl": "from the reference model"}),  # only logged with beta above 0
    _Panel("gradient norm", "before clipping", {"grad_norm": "training"}),
    _Panel(
        "time by phase",
        "seconds per optimiser step",
        per_generation=True,
        stacked=True,
    ),
    _Panel("speed", "tokens per second", {RATE: "prompts and completions"}, per_generation=True),
)


def drawings(rows: list[Row]) -> list[Drawing]:
    """The panels that have values.

    Args:
        rows: The logging steps, as `read_metrics` returns them.
    """
    generations = list(by_generation(rows))
    found = []
    for panel in _PANELS:
        series = panel.series or (phases_of(rows) if panel.stacked else _rewards_by_name(rows))
        source = generations if panel.per_generation else rows
        lines = [line for metric, name in series.items() if (line := _line(source, metric, name))]
        if panel.stacked:
            lines = [line for line in lines if any(line.mean)]
        if lines:
            found.append(Drawing(panel.title, panel.unit, lines, panel.stacked))
    return found


def _rewards_by_name(rows: list[Row]) -> dict[str, str]:
    """The mean of each reward, if the run has more than one."""
    names = {key.split("/")[1] for row in rows for key in row if key.startswith("rewards/") and key.endswith("/mean")}
    return {f"rewards/{name}/mean": name for name in sorted(names)} if len(names) > 1 else {}


def _line(rows: list[Row], metric: str, name: str) -> Line | None:
    points = [row for row in rows if row.get(metric) is not None]
    if not points:
        return None
    steps, mean = [row["step"] for row in points], [row[metric] for row in points]
    spread = [row.get(_SPREAD.get(metric, "")) for row in points]
    if None in spread:
        return Line(name, steps, mean)
    return Line(
        name,
        steps,
        mean,
        low=[value - width for value, width in zip(mean, spread, strict=True)],
        high=[value + width for value, width in zip(mean, spread, strict=True)],
    )
