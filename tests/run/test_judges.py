"""Recipes with a judge: wrong ones are refused, the dry run asks for a score, and a resumed run asks nothing twice."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from yaml import safe_load

from evals.evaluate.completion import Completion
from evals.evaluate.grading import grade
from gbpo.run import train
from judge_servers import MODEL, serving
from rewards import get_reward

RECIPE = Path(__file__).parents[2] / "recipes" / "tiny_judge.yaml"
OPTIONS = safe_load(RECIPE.read_text())["reward_kwargs"]["judge"]


def flags_for(server, **options):
    given = OPTIONS | {"base_url": server.url, "model": MODEL, "retries": 0, "cache": None} | options
    return [str(RECIPE), "--reward_kwargs", json.dumps({"judge": given})]


NO_COLUMN = ["--dataset_columns", "{solution: other}"]

# options of the judge, other flags → words of the line
WRONG = {
    "no address": ({"base_url": "127.0.0.1:8011"}, [], ["127.0.0.1:8011", "is not an address", "http://"]),
    "no server": ({"base_url": "http://127.0.0.1:9/v1"}, [], ["127.0.0.1:9", "cannot grade", "Start the server"]),
    "a key in the address": ({"base_url": "http://me:hidden@h/v1"}, [], ["password", "api_key_env"]),
    "another model": ({"model": "summs"}, [], ["summs", f"models there: {MODEL}"]),
    "template without a completion": ({"template": "Grade {prompt}"}, [], ["{completion}", "file"]),
    "unknown placeholder": ({"template": "{completion} {reference}"}, [], ["{reference}", "{solution}"]),
    "no reference answers": ({"template": "{completion} {solution}"}, NO_COLUMN, ["{solution}", "prompt, other"]),
    "scale of one number": ({"scale": [10]}, [], ["scale=[10]", "[0, 10]"]),
    "no requests": ({"concurrency": 0}, [], ["concurrency=0", "1 or more"]),
    "no time": ({"timeout": -1}, [], ["timeout=-1", "seconds"]),
    "missing key": ({"api_key_env": "NO_SUCH_KEY"}, [], ["NO_SUCH_KEY", "export"]),
    "unknown option": ({"temprature": 1}, [], ["temprature", "max_tokens"]),
    "a judge that talks": ({"field": "grade"}, [], ["cannot grade", "'5'", '"grade"']),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_recipe_is_refused_in_one_line_before_a_model_is_loaded(case, tmp_path, monkeypatch, capsys):
    def load(*args, **kwargs):
        raise AssertionError("a model was about to be loaded")

    monkeypatch.setattr(train.catalogue, "local_model", load)
    monkeypatch.chdir(tmp_path)
    options, flags, words = WRONG[case]
    with serving(lambda request, body: "5") as server, pytest.raises(SystemExit) as stop:
        train.main([*flags_for(server, **options), *flags])
    assert stop.value.code == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert printed[-1].startswith("gbpo: error: ") and not any(line.startswith("Traceback") for line in printed)
    assert len([line for line in printed if not line.startswith("gbpo: note: ")]) == 1
    for word in words:
        assert word in printed[-1]
    assert "hidden" not in printed[-1]
    assert list(tmp_path.iterdir()) == []


def test_the_dry_run_shows_one_score_or_why_there_is_none(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # where no model is built
    monkeypatch.chdir(tmp_path)
    with serving(lambda request, body: "5") as server:
        train.main([*flags_for(server), "--dry_run", "true"])
        page = " ".join(capsys.readouterr().out.split())
        assert f"{MODEL} at {server.url} gives 0.5 to the reference answer of the first row" in page
    train.main([*flags_for(server), "--dry_run", "true"])
    page = " ".join(capsys.readouterr().out.split())
    assert "NO SCORE NOW, so a run would stop: The reward 'judge' cannot grade: " in page
    assert list(tmp_path.iterdir()) == []


def test_evaluation_grades_with_the_judge():
    columns = {"prompt": ["1+1="] * 2, "solution": ["2"] * 2}
    with serving(lambda request, body: "10" if "\n2\n" in body["messages"][0]["content"] else "0") as server:
        options = OPTIONS | {"base_url": server.url, "model": MODEL, "cache": None}
        written = [Completion([0], [1], [{"role": "assistant", "content": text}]) for text in ("2", "3")]
        assert grade(get_reward("judge", **options), columns, written) == [1.0, 0.0]


@pytest.mark.slow
def test_a_resumed_run_asks_nothing_twice_and_ends_the_same(boxing_model, tmp_path, monkeypatch):
    """The judge gives each request another grade, so only kept replies make the two runs equal. The key is not kept.

    The checkpoint is in the middle of the first generation. Step 3 has the second one.
    """
    monkeypatch.setenv("JUDGE_KEY", "sk-hidden")
    with serving(lambda request, body: str(len(server.bodies) % 11)) as server:
        short = "--max_steps 4 --save_strategy steps --save_steps 1 --logging_steps 1 --max_completion_length 12"
        flags = [
            *flags_for(server, cache=str(tmp_path / "replies"), api_key_env="JUDGE_KEY"),
            *("--model_name_or_path", boxing_model, "--per_device_train_batch_size", "16", *short.split()),
        ]
        train.main([*flags, "--output_dir", str(tmp_path / "whole")])
        asked = len(server.bodies)
        resume = ["--resume_from_checkpoint", str(tmp_path / "whole" / "checkpoint-1")]
        train.main([*flags, "--output_dir", str(tmp_path / "resumed"), *resume])
        assert asked > 0 and len(server.bodies) == asked
        assert server.headers[-1]["Authorization"] == "Bearer sk-hidden"
    weights, expected = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("resumed", "whole"))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    for run, some_are_asked in (("whole", True), ("resumed", False)):
        rows = [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        (second,) = (row for row in rows if row["step"] == 3)
        assert (second["rewards/judge/reused"] < 1) == some_are_asked and second["rewards/judge/infra"] == 0
        files = [path for path in (tmp_path / run).rglob("*") if path.is_file() and path.stat().st_size < 10**6]
        assert not [path for path in files if b"sk-hidden" in path.read_bytes()]
