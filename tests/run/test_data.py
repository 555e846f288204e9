"""What a run evaluates on: never the problems that it trains on."""

import json

import pytest

from gbpo.run import data
from gbpo.run.recipe import RunArguments


def test_a_generated_task_is_evaluated_on_other_problems_each_once():
    run = RunArguments(dataset_name="arithmetic", dataset_kwargs={"size": 200, "max_operand": 19, "seed": 3})
    train, held_out = data.load(run, evaluation=True)
    assert len(train) == 200 and not set(train["prompt"]) & set(held_out["prompt"])
    assert len(set(held_out["prompt"])) == len(held_out) > 100  # 400 sums there are, some drawn twice
    for prompt, solution in zip(held_out["prompt"], held_out["solution"], strict=True):
        left, right = prompt.rstrip("=").split("+")
        assert int(left) + int(right) == int(solution)


def test_a_task_without_other_problems_is_refused():
    run = RunArguments(dataset_name="arithmetic", dataset_kwargs={"size": 200, "max_operand": 1})
    with pytest.raises(ValueError, match="zero rows"):
        data.load(run, evaluation=True)


def test_an_evaluation_file_stands_for_the_test_split(tmp_path):
    for name, problems in {"train": ["1+1", "2+2"], "test": ["3+3"]}.items():
        rows = [json.dumps({"problem": problem, "answer": "0"}) + "\n" for problem in problems]
        (tmp_path / f"{name}.jsonl").write_text("".join(rows))
    run = RunArguments(
        dataset_name=str(tmp_path / "train.jsonl"),
        eval_dataset_name=str(tmp_path / "test.jsonl"),
        dataset_columns={"problem": "prompt", "answer": "solution"},
    )
    train, held_out = data.load(run, evaluation=True)
    assert train["prompt"] == ["1+1", "2+2"] and held_out["prompt"] == ["3+3"]
