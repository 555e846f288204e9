"""The study of control: both pages show its table, which is computed from the results, and its picture."""

import dataclasses
import json

import pytest

from evals.control import _check_published
from evals.studies.control import table as made
from evals.studies.control.table import STUDY, draw, hours, studies, table
from gbpo.control.recipe import ALGORITHMS, parse

PAGES = (STUDY / "README.md", STUDY.parents[2] / "gbpo/control/README.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parts[-3])
def test_the_pages_show_the_table_and_the_picture(page):
    text = page.read_text()
    assert "\n".join(table()) in text
    assert (STUDY / "curves.png").is_file() and "curves.png)" in text


def test_a_row_is_computed_from_the_results(tmp_path, monkeypatch):
    study = json.loads((STUDY / "swimmer.json").read_text())
    study |= {"steps": 7_200_000, "seeds": [0, 1]}
    for name, mean, speed in (("bpo", 5.0, 500), ("ppo", -1000.0, 1000)):
        study[name] |= {"iqm": {"estimate": mean, "low": mean - 1, "high": mean + 2}, "steps_per_second": speed}
        study[name] |= {"train_return_means": [mean, mean], "sampled_return_means": [mean + 10, mean + 30]}
    study["difference"] = {"estimate": 1005.0, "low": None, "high": None}
    (tmp_path / "swimmer-7200000.json").write_text(json.dumps(study))
    monkeypatch.setattr(made, "STUDY", tmp_path)
    assert table()[-1] == (
        "| Swimmer-v5 | 7,200,000 | 2 | 5 [4, 7] | -1,000 [-1,001, -998] | 1,005 | ≈ 356 and ≈ 362 at 20M (figure) "
        "| 25, -980 | 12 |"
    )
    assert hours(study) == 12  # 2 × 4 h with BPO, 2 × 2 h with PPO


def test_every_study_has_a_panel_whose_curves_end_at_its_results():
    figure, found = draw(), studies()
    assert len(figure.axes) == len(found) > 8
    for axis, study in zip(figure.axes, found.values(), strict=True):
        ends = {line.get_label(): line.get_ydata()[-1] for line in axis.lines}
        assert ends == {name.upper(): study[name]["iqm"]["estimate"] for name in ("ppo", "bpo")}
        assert study["env"] in axis.get_title()


@pytest.mark.parametrize("file", sorted(STUDY.glob("*.json")), ids=lambda file: file.stem)
def test_the_recipe_still_has_the_settings_of_the_study(file, tmp_path):
    """So the command of a row can add seeds to it."""
    recipe, _, steps = file.stem.partition("-")
    for algorithm in ALGORITHMS:
        flags = ["--algorithm", algorithm, "--output", str(tmp_path / "run"), *(["--steps", steps] if steps else [])]
        _check_published(file, parse([recipe, *flags]).plan, json.loads(file.read_text())["seeds"])


@pytest.mark.parametrize("file", sorted((STUDY / "ant-settings").glob("*/results.json")), ids=lambda f: f.parent.name)
def test_the_page_shows_the_returns_of_other_settings_on_ant(file, tmp_path):
    name, _, algorithm = file.parent.name.rpartition("-")
    results = json.loads(file.read_text())
    recipe = file.parents[1] / f"{name}.yaml"
    plan = parse([str(recipe), "--algorithm", algorithm, "--output", str(tmp_path / "run")]).plan
    assert results["plan"] == json.loads(json.dumps(dataclasses.asdict(plan)))
    returns = [
        ", ".join(f"{seed[part]:,.0f}".replace("-", "−") for seed in results["seeds"])
        for part in ("eval_return_mean", "sampled_return_mean")
    ]
    assert f"| `{name}` | {returns[0]} | {returns[1]} |" in PAGES[0].read_text()
