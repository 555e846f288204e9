"""The rows of an environment without a data set, and data sets whose prompts come from the environment."""

import json

from gbpo.run.data.loading import load
from gbpo.run.preview.hazards import overlap
from gbpo.run.recipe.arguments import RunArguments

EMPTY = [{"role": "user", "content": ""}]


def test_each_row_has_a_seed_and_an_empty_prompt():
    run = RunArguments(environment="builtin:code_word", dataset_kwargs={"size": 20, "seed": 1})
    rows, held_out = load(run, evaluation=True)
    assert rows["prompt"][:] == [EMPTY] * 20 and len(set(rows["seed"])) == 20
    again, _ = load(run, evaluation=False)
    assert again["seed"][:] == rows["seed"][:]
    other, _ = load(RunArguments(environment="builtin:code_word", dataset_kwargs={"size": 20}), evaluation=False)
    assert set(other["seed"]).isdisjoint(rows["seed"])
    assert len(held_out) == 20 and set(held_out["seed"]).isdisjoint(rows["seed"])
    assert overlap(rows, held_out) == [] and overlap(rows, rows)[0].startswith("20 of 20 prompts")


def test_the_rows_take_several_environments_in_turn():
    run = RunArguments(environment={"a": "x.A", "b": "x.B"}, dataset_kwargs={"size": 5})
    rows, _ = load(run, evaluation=False)
    assert rows["environment"][:] == ["a", "b", "a", "b", "a"]


def test_a_data_set_for_an_environment_needs_no_prompt(tmp_path):
    path = tmp_path / "levels.jsonl"
    path.write_text("".join(json.dumps({"level": level}) + "\n" for level in range(3)))
    rows, _ = load(RunArguments(environment="x.A", dataset_name=str(path)), evaluation=False)
    assert rows["prompt"][:] == [EMPTY] * 3 and rows["level"][:] == [0, 1, 2]
