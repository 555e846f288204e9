"""`python -m evals.studies.picture`: draws the picture of the README from the loss and from a study.

The picture has a part for the loss of one token, and two parts for the share of right answers in the validations: of
the study `stability`, which has reference answers, and of the study `test_time`, which has none. It is written four
times: for a light and a dark page, and for a wide and a narrow one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gbpo.core import bounded_ratio_loss
from gbpo.shared.pages.palette import DASHES, PALETTE

from ..report.curves import curve
from ..shared.results import Results

STUDY = Path(__file__).parent / "stability"
EPSILON = 0.3
NAMES = {
    "grpo": "GRPO",
    "gbpo": "GBPO as published",
    "gbpo:target_baseline=exact": "GBPO, exact target",
    "gbpo:target_baseline=exact,overshoot_slope=0.2": "GBPO, exact, overshoot slope 0.2",
}
SLOPES = {"grpo": 0.0, "gbpo": 1.0, "gbpo:target_baseline=exact,overshoot_slope=0.2": 0.2}
THEMES = {"light": ("#1f2328", "#d1d9e0"), "dark": ("#e6edf3", "#3d444d")}  # text and grid
SHAPES = {"wide": (13.2, 3.7), "narrow": (4.2, 11.0)}  # inches


@dataclass(frozen=True)
class StudyPanel:
    """Validation curves of one study.

    Args:
        folder: Folder with its `results.json`, relative to this one.
        setting: Grid point.
        metric: Share of right answers in a validation.
        title: Title.
        axis: What the horizontal axis counts.
    """

    folder: str
    setting: dict[str, float]
    metric: str
    title: str
    axis: str

    def results(self) -> Results:
        """The results of the study."""
        return Results.load(Path(__file__).parent / self.folder)


PANELS = (
    StudyPanel(
        "stability/sums",
        {"epsilon": EPSILON, "num_iterations": 4},
        "eval_reward",
        "Right sums, with reference answers, 5 seeds",
        "optimiser step, 4 per generation",
    ),
    StudyPanel(
        "test_time/updates-16",
        {},
        "eval_rewards/exact_match/mean",
        "Right sums, no reference answers, rate 3e-4, 5 seeds",
        "optimiser step, 16 per generation",
    ),
)


def draw(theme: str, shape: str) -> Figure:
    """Draw the picture.

    Args:
        theme: "light" or "dark", the colour of the page around the picture.
        shape: "wide", with the parts side by side, or "narrow", with one above the other.
    """
    text, grid = THEMES[theme]
    colours = {name: (PALETTE[place][theme == "dark"], DASHES[place]) for place, name in enumerate(NAMES)}
    figure = Figure(figsize=SHAPES[shape])
    figure.patch.set_alpha(0)
    axes = figure.subplots(*((1, 3) if shape == "wide" else (3, 1)))
    figure.subplots_adjust(
        **{"left": 0.04, "right": 0.99, "top": 0.9, "bottom": 0.13, "wspace": 0.15}
        if shape == "wide"
        else {"left": 0.115, "right": 0.97, "top": 0.97, "bottom": 0.045, "hspace": 0.3}
    )
    for axis in axes:
        axis.set_facecolor("none")
        axis.tick_params(colors=text, labelsize=9)
        axis.grid(color=grid, linewidth=0.6)
        axis.spines[:].set_color(grid)
    _losses(axes[0], colours)
    for axis, panel in zip(axes[1:], PANELS, strict=True):
        _rewards(axis, panel, colours)
    for axis in axes:
        axis.title.set_color(text)
        axis.xaxis.label.set_color(text)
        axis.legend(fontsize=9, labelcolor=text, framealpha=0, handlelength=3.2, loc="best")
    return figure


def _losses(axis: Axes, colours: dict[str, tuple[str, str]]) -> None:
    ratio = torch.linspace(0.7, 2.0, 261, dtype=torch.float64)
    epsilon = torch.tensor(EPSILON, dtype=torch.float64)
    for name, slope in SLOPES.items():
        loss = bounded_ratio_loss(ratio.log(), 1 + epsilon, torch.ones_like(epsilon), overshoot_slope=slope)
        _line(axis, ratio.tolist(), loss.tolist(), colours[name], NAMES[name].replace(", exact", ""))
    axis.axvline(1 + epsilon.item(), color="#888888", linewidth=0.8, linestyle=":")
    axis.set_title("Loss of a token of a good completion", fontsize=10)
    axis.set_xlabel("probability ratio; the bound is 1.3", fontsize=9)


def _rewards(axis: Axes, panel: StudyPanel, colours: dict[str, tuple[str, str]]) -> None:
    results = panel.results()
    for name, shown in NAMES.items():
        line = curve(results.done(name, panel.setting), panel.metric)
        if line is None or line.low is None or line.high is None:
            raise ValueError(
                f"{panel.folder} has no validations of {name} at {panel.setting}, so nothing can be drawn."
            )
        _line(axis, line.steps, line.mean, colours[name], shown)
        axis.fill_between(line.steps, line.low, line.high, color=colours[name][0], alpha=0.12, linewidth=0)
    axis.set_title(panel.title, fontsize=10)
    axis.set_xlabel(panel.axis, fontsize=9)
    axis.set_ylim(0, 1)


def _line(axis: Axes, x: list[float], y: list[float], style: tuple[str, str], label: str) -> None:
    colour, dash = style
    pattern = (0, tuple(map(float, dash.split()))) if dash else "-"
    axis.plot(x, y, color=colour, linestyle=pattern, linewidth=1.8, label=label)


def main() -> None:
    """Write the four files beside the study."""
    with mpl.rc_context({"svg.hashsalt": "gbpo"}):  # the same file every time
        for theme in THEMES:
            for shape in SHAPES:
                path = STUDY / f"picture-{shape}-{theme}.svg"
                draw(theme, shape).savefig(path, metadata={"Date": None}, transparent=True)
                print(path)


if __name__ == "__main__":
    main()
