"""Recipes on data sets with suites of tests, as they are on the Hub."""

import json
from pathlib import Path

import pytest
from datasets import Dataset

from gbpo.run import train
from gbpo.run.data.loading import load
from gbpo.run.recipe.arguments import RunArguments
from rewards import check, get_reward

TINY = str(Path(__file__).parents[3] / "recipes" / "tiny_math.yaml")

# name → rows with correct programs, the columns of the recipe, and the line at the start
FORMATS = {
    "APPS": (
        [
            {
                "question": "Read x, print x + 9.",
                "input_output": '{"inputs": ["4\\n"], "outputs": ["13\\n"]}',
                "reference": "print(int(input()) + 9)",
            },
            {
                "question": "join(a, b) joins texts.",
                "input_output": '{"fn_name": "join", "inputs": [["a", "b"]], "outputs": ["ab"]}',
                "reference": "def join(a, b): return a + b",
            },
        ],
        {"question": "prompt", "input_output": "tests"},
        "tests: inputs and outputs, 2 rows: stdin 1, call 1",
    ),
    "LiveCodeBench": (
        [
            {
                "question_content": "Read x, print x + 9.",
                "public_test_cases": '[{"input": "4\\n", "output": "13\\n", "testtype": "stdin"}]',
                "metadata": "{}",
                "reference": "print(int(input()) + 9)",
            },
            {
                "question_content": "class Solution, add(a, b)",
                "public_test_cases": '[{"input": "4\\n9", "output": "13", "testtype": "functional"}]',
                "metadata": '{"func_name": "add"}',
                "reference": "class Solution:\n    def add(self, a, b): return a + b",
            },
        ],
        {"question_content": "prompt", "public_test_cases": "tests"},
        "tests: LiveCodeBench's form, 2 rows: stdin 1, call 1",
    ),
    "open-r1": (
        [
            {
                "problem_statement": "Read x, print x + 9.",
                "verification_info": {
                    "language": "python",
                    "test_cases": [{"fn_name": None, "input": "4\n", "output": "13\n", "type": "stdin_stdout"}],
                },
                "reference": "print(int(input()) + 9)",
            }
        ],
        {"problem_statement": "prompt", "verification_info": "tests"},
        "tests: verification_info with test_cases, 1 row: stdin 1",
    ),
    "KodCode": (
        [
            {
                "question": "Write add, which adds 9.",
                "test": "from solution import add\n\ndef test_add():\n    for x in [1, 5]: assert add(x) == x + 9\n",
                "reference": "def add(x): return x + 9",
            }
        ],
        {"question": "prompt", "test": "tests"},
        "tests: test functions, 1 row",
    ),
    "HumanEval": (
        [
            {
                "prompt": "def add(x):\n    ...",
                "test": "def check(candidate):\n    for x in range(3):\n        assert candidate(x) == x + 9\n",
                "entry_point": "add",
                "reference": "def add(x): return x + 9",
            }
        ],
        {"test": "tests"},
        "tests: check, 1 row",
    ),
}


def recipe(path, columns):
    return RunArguments(dataset_name=str(path), dataset_columns=columns, reward_funcs=["code"])


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(("rows", "columns", "line"), FORMATS.values(), ids=FORMATS)
def test_a_run_says_which_form_it_found_and_correct_programs_pass(rows, columns, line, tmp_path, capsys):
    loaded, _ = load(recipe(write(tmp_path / "rows.jsonl", rows), columns), evaluation=False)
    assert capsys.readouterr().err.splitlines() == [f"gbpo: note: {line}"]
    statuses = get_reward("code", workers=1).check_references(**loaded.remove_columns("prompt").to_dict())
    assert statuses == ["ok"] * len(rows)


def test_the_column_is_left_alone_without_the_reward(tmp_path, capsys):
    path = write(tmp_path / "rows.jsonl", [{"prompt": "p", "tests": '{"inputs": ["4"], "outputs": ["13"]}'}])
    loaded, _ = load(RunArguments(dataset_name=str(path), reward_funcs=["my.own"]), evaluation=False)
    assert loaded["tests"] == ['{"inputs": ["4"], "outputs": ["13"]}'] and not capsys.readouterr().err


def test_suites_that_cannot_be_read_stop_the_run_in_one_line(tmp_path):
    rows = [{"prompt": "p", "tests": "eJxrYJmqzoAGSrOLM8sA"}] * 3
    with pytest.raises(ValueError, match=r"rows\.jsonl': tests: 3 of 3 rows .*row 0: .*never unpickled") as error:
        load(recipe(write(tmp_path / "rows.jsonl", rows), {}), evaluation=False)
    assert "\n" not in str(error.value)


def test_the_check_reads_the_same_forms(tmp_path, capsys):
    rows, columns, line = FORMATS["LiveCodeBench"]
    wrong = rows[1] | {"reference": "def add(a, b): return a"}
    path = write(tmp_path / "rows.jsonl", [*rows, wrong])
    arguments = [str(path), "--reward", "code", "--reward_kwargs", '{"workers": 1}', "--columns", json.dumps(columns)]
    with pytest.raises(SystemExit) as end:
        check.main(arguments)
    printed = capsys.readouterr()
    assert end.value.code == 1
    assert line.replace("2 rows", "3 rows").replace("call 1", "call 2") in printed.err.splitlines()
    assert "row 2: wrong" in printed.out and "2 of 3 reference answers" in printed.out


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_a_recipe_takes_two_steps(name, tmp_path, boxing_model):
    rows, columns, _ = FORMATS[name]
    path = tmp_path / "rows.parquet"
    Dataset.from_list(rows * 4).to_parquet(path)
    train.main(
        [TINY, "--model_name_or_path", boxing_model, "--dataset_name", str(path)]
        + ["--dataset_columns", json.dumps(columns), "--output_dir", str(tmp_path / "run")]
        + ["--reward_funcs", "code", "--reward_kwargs", "{code: {workers: 1}}"]
        + ["--per_device_train_batch_size", "8", "--max_completion_length", "12"]
        + ["--max_steps", "2", "--logging_steps", "1"]
    )
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics] == [1, 2]
    assert all(row["reward"] is not None and row["rewards/code/no_gold"] == 0 for row in metrics)
