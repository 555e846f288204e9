"""The curves of a run as a picture, drawn from its metrics."""

from math import ceil
from pathlib import Path

from .folder import CURVES, read_metrics
from .panels import drawings


def draw_curves(folder: Path, title: str) -> None:
    """Draw the panels that have values over the optimiser steps into `curves.png`.

    Args:
        folder: Output folder of the run.
        title: Title of the figure.
    """
    import matplotlib  # takes a second to import, and only the main process draws

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = drawings(read_metrics(folder))
    rows = max(ceil(len(panels) / 2), 1)
    figure = pyplot.figure(figsize=(10, 3.25 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, 2)
    for place, panel in enumerate(panels):
        axis = figure.add_subplot(grid[place], sharex=figure.axes[0] if place else None)
        if panel.stacked:
            axis.stackplot(
                panel.lines[0].steps, [line.mean for line in panel.lines], labels=[line.name for line in panel.lines]
            )
        else:
            for line in panel.lines:
                axis.plot(line.steps, line.mean, label=line.name, marker="." if len(line.steps) < 40 else None)
                if line.low and line.high:
                    axis.fill_between(line.steps, line.low, line.high, alpha=0.15, linewidth=0)
            axis.set_ylim(bottom=min(0.0, *(value for line in panel.lines for value in line.mean)))
        axis.set_title(f"{panel.title} ({panel.unit})", fontsize=10)
        axis.grid(alpha=0.3)
        if len(panel.lines) > 1:
            axis.legend(fontsize=8)
    for axis in figure.axes[-2:]:
        axis.set_xlabel("optimiser step")
    figure.suptitle(title)
    figure.savefig(folder / CURVES, dpi=120)
    pyplot.close(figure)
