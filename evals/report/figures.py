"""The figures of a report: validation curves, heat maps and differences with their intervals."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

from matplotlib.figure import Figure

from gbpo.shared.pages.palette import DASHES, PALETTE

from ..shared.estimates import is_finite
from ..shared.results import Results, label
from .analysis import Analysis
from .curves import curve
from .differences import PointDifference
from .heat_maps import HeatMaps, heat_maps

FIGURE_NAMES = ("validation*.png", "heatmap-*.png", "differences.png")  # patterns of the file names


def figures(results: Results, analysis: Analysis, mean_name: str) -> Iterator[tuple[str, bytes]]:
    """Draw the figures one at a time. Figures without numbers are left out.

    Yields:
        File name and PNG of each figure.
    """
    settings = results.settings()
    for place, setting in enumerate(settings, 1):
        drawn = _validation(results, setting)
        if drawn:
            point = re.sub(r"[^\w=.,+-]+", "_", label(setting))[:80]
            yield f"validation-{place:0{len(str(len(settings)))}}-{point}.png" if point else "validation.png", drawn
    for collection in heat_maps(results, analysis, mean_name):
        yield f"heatmap-{collection.name}.png", _heat_maps(collection)
    shown = [difference for difference in analysis.differences if is_finite(difference.last.estimate)]
    if shown:
        yield "differences.png", _differences(shown, analysis.baseline, mean_name)


def _validation(results: Results, setting: dict[str, object]) -> bytes | None:
    figure = Figure(figsize=(6, 3.8), layout="tight")
    axis = figure.subplots()
    for place, algorithm in enumerate(results.algorithms):
        cells = results.done(algorithm, setting)
        line = curve(cells, "eval_reward")
        if line:
            colour = PALETTE[place % len(PALETTE)][0]
            style = (0, tuple(map(float, dash.split()))) if (dash := DASHES[place % len(DASHES)]) else "-"
            seeds = f"{len(cells)} seed{'s' * (len(cells) > 1)}"
            axis.plot(line.steps, line.mean, color=colour, linestyle=style, label=f"{algorithm} ({seeds})")
            if line.low and line.high:
                axis.fill_between(line.steps, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
    if not axis.lines:
        return None
    axis.set_xlabel("optimiser step")
    axis.set_ylabel("validation reward")
    axis.set_title(label(setting), fontsize=9)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=7)
    return _png(figure)


def _heat_maps(collection: HeatMaps) -> bytes:
    maps = collection.maps
    across = min(len(maps), 3)
    down = -(-len(maps) // across)
    width, height = max(2.6, 0.7 * len(maps[0].columns) + 1), max(1.9, 0.5 * len(maps[0].rows) + 1.2)
    figure = Figure(figsize=(across * width, down * height + 0.5), layout="constrained")
    figure.suptitle(collection.title, fontsize=10)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, drawn in zip(axes, maps, strict=False):
        axis.set_axis_on()
        values = [[float("nan") if spot.value is None else spot.value for spot in row] for row in drawn.spots]
        colours = "PuOr" if collection.diverging else "Blues"
        shown = [
            [value * spot.coloured for value, spot in zip(*rows, strict=True)]
            for rows in zip(values, drawn.spots, strict=True)
        ]
        image = axis.imshow(shown, vmin=collection.low, vmax=collection.high, cmap=colours, aspect="auto")
        for y, row in enumerate(values):
            for x, value in enumerate(row):
                if value == value:
                    dark = sum(image.cmap(image.norm(shown[y][x]))[:3]) < 1.5
                    text = f"{value:+.3f}" if collection.diverging else f"{value:.3f}"
                    axis.text(x, y, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
        axis.set_xticks(range(len(drawn.columns)), [str(value) for value in drawn.columns], fontsize=7)
        axis.set_xlabel(drawn.column_field, fontsize=7)
        if drawn.row_field:
            axis.set_yticks(range(len(drawn.rows)), [str(value) for value in drawn.rows], fontsize=7)
            axis.set_ylabel(drawn.row_field, fontsize=7)
        else:
            axis.set_yticks([])
        axis.set_title("\n".join(filter(None, (drawn.algorithm, drawn.facet))), fontsize=7)
    return _png(figure)


def _differences(differences: list[PointDifference], baseline: str, mean_name: str) -> bytes:
    names = [" · ".join(filter(None, (label(d.setting), d.algorithm))) for d in differences]
    width = 4.5 + 0.055 * max(map(len, names))  # inches; the names need 0.055 inches per character
    figure = Figure(figsize=(width, 0.25 * len(names) + 1), layout="constrained")
    axis = figure.subplots()
    axis.axvline(0, color="black", linewidth=0.8)
    algorithms = list(dict.fromkeys(difference.algorithm for difference in differences))
    for y, difference in enumerate(differences):
        colour = PALETTE[(algorithms.index(difference.algorithm) + 1) % len(PALETTE)][0]
        axis.plot(difference.last.estimate, y, "o", color=colour, markersize=5)
        if ends := difference.last.ends:
            axis.hlines(y, *ends, color=colour)
    axis.set_yticks(range(len(differences)), names, fontsize=7)
    axis.invert_yaxis()
    interval = (
        ", 95 % interval corrected by Holm's method" if any(difference.last.ends for difference in differences) else ""
    )
    axis.set_xlabel(f"difference of final {mean_name} to {baseline}{interval}", fontsize=8)
    axis.grid(axis="x", alpha=0.25)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
