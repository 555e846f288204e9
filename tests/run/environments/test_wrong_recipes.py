"""Recipes with environments that cannot run are refused in one line, before a model is built or loaded."""

import json
from pathlib import Path

import pytest

from gbpo.run.environments import kinds

HERE = Path(__file__).parent
ROOMS = {"here": "rooms.Room"}

# name of the case → environment, other flags, words of the error
CASES = {
    "no module": ("nowhere.make", [], ["'nowhere.make'", "No module named 'nowhere'", "PYTHONPATH"]),
    "no attribute": ("rooms.Romm", [], ["'rooms.Romm'", "no attribute 'Romm'"]),
    "not callable": ("rooms.NOT_CALLABLE", [], ["int", "cannot be called"]),
    "not a path": ("rooms", [], ["'rooms' is not an environment", "my_module.make"]),
    "unknown kind": ("reasoning_gmy:lcm", [], ["did you mean reasoning_gym:lcm?"]),
    "verifiers": ("verifiers:gsm8k", [], ["'verifiers:gsm8k' needs", "pip install -e '", "[verifiers]'"]),
    "verifiers beside": (
        {"here": "verifiers:gsm8k", "there": "rooms.Room"},
        [],
        ["verifiers:gsm8k has rows of its own", "Write environment: verifiers:gsm8k alone"],
    ),
    "unknown builtin": ("builtin:code_wrd", [], ["'builtin:code_wrd'", "code_word"]),
    "missing package": ("reasoning_gym:lcm", [], ["reasoning_gym", "not installed: pip install reasoning-gym"]),
    "fails": ("rooms.Unmade", [], ["creating it raised OSError no licence"]),
    "wrong option": ("rooms.Room", ["--environment_kwargs", "{size: 3}"], ["creating it raised TypeError"]),
    "no reset": ("rooms.NoReset", [], ["NoReset has no method reset", "def reset(self, **row)"]),
    "another object": ("rooms.not_an_environment", [], ["int has no method reset"]),
    "no tool": ("rooms.NoTool", [], ["NoTool has no public method besides reset"]),
    "no type": ("rooms.NoHint", [], ["NoHint.look cannot be described", "where", "Give each argument a type"]),
    "no docstring": ("rooms.NoDocs", [], ["NoDocs.look cannot be described", "docstring"]),
    "yields": ("rooms.Yields", [], ["Yields.walk yields", "Return a text"]),
    "missing column": ("rooms.OtherColumns", [], ["reset needs 'level'", "only prompt, seed", "a default value"]),
    "other columns": ("rooms.OneColumn", [], ["does not accept the columns prompt, seed", "reset(self, **row)"]),
    "random": ("rooms.NotOfTheRow", [], ["'Room", "for the same row", "its column seed"]),
    "no text": ("rooms.NoText", [], ["reset returns 3", "Return a text"]),
    "no task": ("rooms.NoTask", [], ["the prompt is empty and reset returns None"]),
    "no reward": ("rooms.NoReward", [], ["NoReward has no method get_reward", "reward_funcs"]),
    "no column": (ROOMS, ["--dataset_name", "arithmetic"], ["no column 'environment'", "prompt, solution"]),
    "unknown name": (ROOMS, ["--dataset_name", "{rows}"], ["Row 1 has environment='there'", "it has here"]),
    "options of another": (ROOMS, ["--environment_kwargs", "{there: {a: 1}}"], ["names 'there'", "has here"]),
    "not text": ({"here": 3}, [], ["environment 'here'=3", "write text"]),
    "ahead": (
        "rooms.Room",
        ["--generate_ahead", "1"],
        ["generate_ahead=1 with environment", "Remove generate_ahead or environment"],
    ),
    "other dtype": ("rooms.Room", ["--sampling_dtype", "bfloat16"], ["sampling_dtype=bfloat16 with environment"]),
    "votes": (
        "rooms.Room",
        ["--reward_funcs", "majority_vote", "--reward_kwargs", "{majority_vote: {votes: 16}}"],
        ["1 more round(s) of votes", "Remove votes or environment"],
    ),
    "with Python": ("rooms.Room", ["--tools", "builtin:python"], ["take the place of the environment", "Remove it"]),
    "only options": (
        None,
        ["--dataset_name", "arithmetic", "--environment_kwargs", "{a: 1}"],
        ["environment_kwargs is given", "no effect"],
    ),
    "weights": ("rooms.Room", ["--reward_weights", "1", "2"], ["2 weights for 1 reward(s): Room"]),
}


RECIPE = "environment: {}\nmodel_name_or_path: {}\nnum_generations: 8\nper_device_train_batch_size: 8\nmax_steps: 1\n"


@pytest.mark.parametrize("case", CASES)
def test_one_clear_line_before_a_model_is_loaded(case, tmp_path, monkeypatch, refused):
    environment, flags, words = CASES[case]
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kinds, "find_spec", lambda package: None)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"environment": name}) + "\n" for name in ("here", "there")))
    (tmp_path / "own.yaml").write_text(RECIPE.format(json.dumps(environment), "builtin:tiny_agent"))
    refused(["own.yaml", *[flag.format(rows=rows) if flag == "{rows}" else flag for flag in flags]], words)


def test_a_template_without_tools_is_refused(random_model, tmp_path, monkeypatch, refused):
    """`random_model` has the chat template of the other tiny models."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text(RECIPE.format("builtin:code_word", random_model))
    refused(["own.yaml"], ["leaves out calls of tools or their answers"])
