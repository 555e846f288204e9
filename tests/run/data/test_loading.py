"""The evaluation set never contains training problems."""

import pandas
import pytest

from gbpo.run.data.loading import load
from gbpo.run.recipe.arguments import RunArguments


def test_a_generated_task_is_evaluated_on_other_problems_without_duplicates():
    run = RunArguments(dataset_name="arithmetic", dataset_kwargs={"size": 200, "max_operand": 19, "seed": 3})
    train, held_out = load(run, evaluation=True)
    assert len(train) == 200 and not set(train["prompt"]) & set(held_out["prompt"])
    assert len(set(held_out["prompt"])) == len(held_out) > 100  # there are 400 additions, and some are sampled twice
    for prompt, solution in zip(held_out["prompt"], held_out["solution"], strict=True):
        left, right = prompt.rstrip("=").split("+")
        assert int(left) + int(right) == int(solution)


def test_a_task_with_too_few_problems_is_refused():
    run = RunArguments(dataset_name="arithmetic", dataset_kwargs={"size": 200, "max_operand": 1})
    with pytest.raises(ValueError, match="zero rows"):
        load(run, evaluation=True)


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_an_evaluation_file_replaces_the_test_split(tmp_path, suffix):
    for name, problems in {"train": ["1+1", "2+2"], "test": ["3+3"]}.items():
        table, path = pandas.DataFrame({"problem": problems, "answer": "0"}), tmp_path / f"{name}.{suffix}"
        if suffix == "jsonl":
            table.to_json(path, orient="records", lines=True)
        else:
            getattr(table, f"to_{suffix}")(path, index=False)
    run = RunArguments(
        dataset_name=str(tmp_path / f"train.{suffix}"),
        eval_dataset_name=str(tmp_path / f"test.{suffix}"),
        dataset_columns={"problem": "prompt", "answer": "solution"},
    )
    train, held_out = load(run, evaluation=True)
    assert train["prompt"] == ["1+1", "2+2"] and held_out["prompt"] == ["3+3"]
