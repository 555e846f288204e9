"""Data sets get the columns that a recipe asks for. The evaluation set never contains training problems."""

import json

import huggingface_hub
import pandas
import pytest
import transformers
from datasets import Dataset
from transformers import AutoModelForCausalLM

from gbpo.run.data import loading
from gbpo.run.data.loading import PASSED_BY_TRL, load, quiet
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


def test_a_part_of_a_hub_set_can_be_evaluated_on_a_file(tmp_path, monkeypatch):
    def load_dataset(name, config, split):
        assert (name, split) == ("some/set", "train[:90%]")
        return Dataset.from_dict({"prompt": ["1+1"]})

    monkeypatch.setattr(loading, "load_dataset", load_dataset)
    file = write(tmp_path / "test.jsonl", {"prompt": "3+3"})
    run = RunArguments(dataset_name="some/set", dataset_train_split="train[:90%]", eval_dataset_name=file)
    train, held_out = load(run, evaluation=True)
    assert train["prompt"] == ["1+1"] and held_out["prompt"] == ["3+3"]


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_columns_are_renamed_and_then_read_by_extractors(tmp_path, capsys):
    row = {"question": "3+8?", "solution": "Add 3 and 8.", "answer": "It is 11.\n#### 11"}
    run = RunArguments(
        dataset_name=write(tmp_path / "train.jsonl", row, row),
        eval_dataset_name=write(tmp_path / "test.jsonl", {**row, "answer": "#### 1,100"}, {**row, "answer": "?"}),
        dataset_columns={"question": "prompt", "answer": "solution"},
        dataset_extract={"solution": "after ####"},
    )
    train, held_out = load(run, evaluation=True)
    assert train.to_list() == [{"prompt": "3+8?", "solution": "11"}] * 2
    assert held_out["solution"] == ["1100", None]
    # what both sets have in common is said once
    assert capsys.readouterr().err.splitlines() == [
        "gbpo: note: dataset_columns: 'answer' replaces the column 'solution' of the data set.",
        "gbpo: note: dataset_extract: 'after ####' finds nothing for 'solution' in 1 of 2 rows, first in row 1: '?'. "
        "These rows have no 'solution': correct or remove them.",
    ]


def test_a_function_of_the_user_may_make_the_prompt(tmp_path, monkeypatch):
    (tmp_path / "my_rows.py").write_text("def prompt(row): return f\"{row['a']}+{row['b']}?\"\n")
    monkeypatch.syspath_prepend(tmp_path)
    run = RunArguments(
        dataset_name=write(tmp_path / "train.jsonl", {"a": 3, "b": 8}), dataset_extract={"prompt": "my_rows.prompt"}
    )
    train, _ = load(run, evaluation=False)
    assert train.to_list() == [{"a": 3, "b": 8, "prompt": "3+8?"}]


@pytest.mark.parametrize("column", [*PASSED_BY_TRL, "completion", "extra_votes"])
def test_a_column_with_the_name_of_an_argument_is_left_out_and_said(tmp_path, capsys, column):
    name = write(tmp_path / "rows.jsonl", {"prompt": "3+8?", column: "x", "solution": "11"})
    train, _ = load(RunArguments(dataset_name=name), evaluation=False)
    assert train.to_list() == [{"prompt": "3+8?", "solution": "11"}]
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and f"{column!r} is left out" in line and f"{{{column}: my_{column}}}" in line
    # the fix that the line names
    train, _ = load(RunArguments(dataset_name=name, dataset_columns={column: f"my_{column}"}), evaluation=False)
    assert train[f"my_{column}"] == ["x"] and capsys.readouterr().err == ""


def test_the_answer_in_a_prompt_is_left_out_and_said(tmp_path, capsys):
    chat = [{"role": "user", "content": "3+8?"}, {"role": "assistant", "content": "11"}]
    name = write(tmp_path / "chats.jsonl", {"messages": chat})
    train, _ = load(RunArguments(dataset_name=name, dataset_columns={"messages": "prompt"}), evaluation=False)
    assert train["prompt"] == [chat[:1]]
    assert "1 of 1 prompts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dataset_columns": {"text": 3}}, ["dataset_columns", "3", "text"]),
        ({"dataset_extract": {"solution": ["last box"]}}, ["dataset_extract", "['last box']"]),
        ({"dataset_extract": "{solution: after # Answer}"}, ["dataset_extract", "# after a space", "quotes"]),
        ({"max_prompt_tokens": 0}, ["max_prompt_tokens=0", "positive"]),
    ],
)
def test_values_that_cannot_be_used_are_refused(fields, words):
    with pytest.raises(ValueError) as refused:
        RunArguments(dataset_name="arithmetic", **fields)
    for word in words:
        assert word in str(refused.value)


def test_no_bar_of_transformers_cuts_the_lines_of_the_console(random_model, tmp_path, capsys, monkeypatch):
    """transformers shows a bar while it reads and writes weights. The bars of downloads from the Hub stay."""
    monkeypatch.setattr(transformers.utils.logging, "_tqdm_active", True)
    huggingface_hub.utils.enable_progress_bars()
    quiet()
    AutoModelForCausalLM.from_pretrained(random_model).save_pretrained(tmp_path)
    assert "%" not in capsys.readouterr().err
    assert not huggingface_hub.utils.are_progress_bars_disabled()
