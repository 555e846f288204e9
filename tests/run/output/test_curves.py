"""The panels of the curves and the points in them."""

import json

import pytest
from matplotlib import pyplot

from gbpo.run.output.curves import draw_curves


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """`drawn(rows)` draws the curves of these logging steps: the title of each panel and the lines in it."""
    monkeypatch.setattr(pyplot, "close", lambda figure: None)

    def draw(rows):
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        draw_curves(tmp_path, "a run")
        assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
        axes = pyplot.gcf().axes
        return {axis.get_title(): [[*map(float, line.get_ydata())] for line in axis.lines] for axis in axes}

    yield draw
    monkeypatch.undo()
    pyplot.close("all")


ROWS = [{"step": step, "reward": step / 4, "entropy": 1.0} for step in (1, 2, 3)]


@pytest.mark.parametrize("values", [[0.0, 0.01, 0.02], [0.0, 0.0, 0.0], [0.0, None, 0.02]])
def test_the_kl_has_a_panel_when_it_is_logged(drawn, values):
    panels = drawn([row | {"kl": value} for row, value in zip(ROWS, values, strict=True)])
    assert panels["KL divergence (nats per token)"] == [[value for value in values if value is not None]]
    assert panels["reward (per completion)"] == [[0.25, 0.5, 0.75]] and len(panels) == 3


def test_the_kl_has_no_panel_without_beta(drawn):
    assert [*drawn(ROWS)] == ["reward (per completion)", "entropy (nats per token)"]


def test_a_run_without_logs_has_an_empty_picture(drawn):
    assert drawn([]) == {}
