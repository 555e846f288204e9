"""The curves of a run, drawn from its metrics."""

from math import ceil
from pathlib import Path

from .folder import CURVES, read_metrics

_KL = "KL divergence (nats per token)"
# panel → logged metric → label
_PANELS: dict[str, dict[str, str]] = {
    "reward": {"reward": "training", "eval_reward": "evaluation"},
    "entropy (nats per token)": {"entropy": "training"},
    "ratio (fraction of tokens)": {
        "gbpo/outside_bounds": "outside the bounds",
        "gbpo/overshoot": "past the bound of the target",
        "clip_ratio/region_mean": "clipped by GRPO",
    },
    "length (tokens)": {"completions/mean_length": "mean", "completions/max_length": "longest"},
    _KL: {"kl": "from the reference model"},  # only logged with beta above 0
}


def draw_curves(folder: Path, title: str) -> None:
    """Draw reward, entropy, ratio, length and, if it was logged, KL over the optimiser steps into `curves.png`.

    Args:
        folder: Output folder of the run.
        title: Title of the figure.
    """
    import matplotlib  # takes a second to import, and only the main process draws

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = read_metrics(folder)
    has_kl = any(row.get("kl") is not None for row in rows)
    panels = {name: series for name, series in _PANELS.items() if name != _KL or has_kl}
    lines = ceil(len(panels) / 2)
    figure = pyplot.figure(figsize=(10, 3.25 * lines), layout="constrained")
    grid = figure.add_gridspec(lines, 2)
    for place, (panel, series) in enumerate(panels.items()):
        axis = figure.add_subplot(grid[place], sharex=figure.axes[0] if place else None)
        for key, label in series.items():
            points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
            if points:
                axis.plot(*zip(*points, strict=True), label=label, marker="." if len(points) < 40 else None)
        axis.set_title(panel, fontsize=10)
        axis.grid(alpha=0.3)
        axis.set_ylim(bottom=0)
        if len(axis.lines) > 1:
            axis.legend(fontsize=8)
    for axis in figure.axes[-2:]:
        axis.set_xlabel("optimiser step")
    figure.suptitle(title)
    figure.savefig(folder / CURVES, dpi=120)
    pyplot.close(figure)
