"""The picture of the README: it is drawn from the core and the study, and the files are up to date."""

import re
from xml.etree import ElementTree

import matplotlib as mpl
import pytest

from evals.studies.picture import NAMES, PANELS, SHAPES, STUDY, THEMES, draw


def lines(figure, place):
    return {line.get_label(): line for line in figure.axes[place].lines}


def test_losses_are_flat_for_grpo_and_a_v_for_gbpo():
    """At ρ = 2 with the bound 1.3 the distance is 0.7: times 0 for GRPO, 1 as published, and 0.2."""
    drawn = lines(draw("light", "wide"), 0)
    last = {name: drawn[name].get_ydata()[-1] for name in ("GRPO", "GBPO as published", "GBPO, overshoot slope 0.2")}
    assert last == pytest.approx({"GRPO": 0, "GBPO as published": 0.7, "GBPO, overshoot slope 0.2": 0.14})
    assert all(drawn[name].get_ydata()[0] == pytest.approx(0.6) for name in last)  # 1.3 - 0.7


@pytest.mark.parametrize(("place", "panel"), enumerate(PANELS, start=1))
def test_curves_are_the_means_of_the_study(place, panel):
    drawn = lines(draw("light", "wide"), place)
    assert list(drawn) == list(NAMES.values())
    for name, shown in NAMES.items():
        cells = panel.results().done(name, panel.setting)
        assert len(cells) == 5
        ends = [cell.series[panel.metric][-1] for cell in cells]
        assert drawn[shown].get_ydata()[-1] == pytest.approx(sum(ends) / 5)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_files_are_up_to_date(theme, shape, tmp_path):
    """Every path of the files; fonts and their outlines may differ between machines."""
    with mpl.rc_context({"svg.hashsalt": "gbpo"}):
        draw(theme, shape).savefig(tmp_path / "now.svg", transparent=True)

    def curves(path):
        found = ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}path")
        return [
            (one.get("d"), one.get("style")) for one in found if re.search(r"stroke-width: 1.8", one.get("style") or "")
        ]

    stored = curves(STUDY / f"picture-{shape}-{theme}.svg")
    assert len(stored) >= 11
    assert stored == curves(tmp_path / "now.svg"), "run python -m evals.studies.picture"
