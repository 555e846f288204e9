"""Rows in the formats of well-known data sets on the Hub: what the recipe's lines make of them, and runs on them."""

import json
from pathlib import Path

import pytest
from datasets import Dataset

from gbpo.run import train
from gbpo.run.data.loading import load
from gbpo.run.recipe.arguments import RunArguments
from rewards import get_reward

TINY = str(Path(__file__).parents[3] / "recipes" / "tiny_math.yaml")
NESTED = {"data_source": "made", "ability": "math", "extra_info": {"index": "k"}}


def chat(text):
    return [{"role": "user", "content": text}]


# name → rows, the lines of the recipe, and the reference answers that must come out
FORMATS = {
    "GSM8K": (
        [
            {"question": "A shelf has 14 books and gets 5.", "answer": "14 + 5 = <<14+5=19>>19 books.\n#### 19"},
            {"question": "5 and 2,340 make?", "answer": "5 + 2340 = <<5+2340=2345>>2345\n#### 2,345"},
        ],
        {
            "dataset_columns": {"question": "prompt", "answer": "solution"},
            "dataset_extract": {"solution": "after ####"},
        },
        ["19", "2345"],
    ),
    "MATH": (
        [{"problem": "3/4 - 1/2?", "level": "Level 1", "type": "Algebra", "solution": r"We get $\boxed{\frac14}$."}],
        {"dataset_columns": {"problem": "prompt"}, "dataset_extract": {"solution": "last box"}},
        [r"\frac14"],
    ),
    "MATH, whole solutions": (
        [{"problem": "3/4 - 1/2?", "level": "Level 1", "type": "Algebra", "solution": r"We get $\boxed{\frac14}$."}],
        {"dataset_columns": {"problem": "prompt"}},
        [r"We get $\boxed{\frac14}$."],  # `math` reads the last box itself
    ),
    "DAPO-Math, Eurus-2-RL": (
        [
            {"prompt": chat("14+5?"), "reward_model": {"ground_truth": "19", "style": "rule"}, **NESTED},
            {"prompt": chat("5*4?"), "reward_model": {"ground_truth": "20", "style": "rule"}, **NESTED},
        ],
        {"dataset_columns": {"reward_model.ground_truth": "solution"}},
        ["19", "20"],
    ),
    "Skywork-OR1": (
        [{"prompt": chat("14+5?"), "reward_model": {"ground_truth": '["19"]', "style": "rule"}, **NESTED}],
        {"dataset_columns": {"reward_model.ground_truth": "solution"}, "dataset_extract": {"solution": "json list"}},
        ["19"],
    ),
    "NuminaMath-1.5, OpenR1-Math": (
        [{"problem": "3+3?", "solution": "It is $6$.", "answer": "6", "problem_type": "Algebra"}],
        {"dataset_columns": {"problem": "prompt", "answer": "solution"}},
        ["6"],
    ),
    "Big-Math": (
        [{"problem": "3+3?", "answer": "6", "source": "made", "domain": ["Algebra"], "llama8b_solve_rate": 0.5}],
        {"dataset_columns": {"problem": "prompt", "answer": "solution"}},
        ["6"],
    ),
    "chat with the answer in it": (
        [{"messages": [*chat("3+3?"), {"role": "assistant", "content": r"\boxed{6}"}], "answer": "6"}],
        {"dataset_columns": {"messages": "prompt", "answer": "solution"}},
        ["6"],
    ),
    "content parts": (
        [{"prompt": [{"role": "user", "content": [{"type": "text", "text": "3+3?"}]}], "solution": "6"}],
        {},
        ["6"],
    ),
}


@pytest.fixture(params=["parquet", "jsonl"])
def data_file(request, tmp_path):
    """Writes rows as the Hub stores them."""

    def write(rows):
        path = tmp_path / f"rows.{request.param}"
        if request.param == "parquet":
            Dataset.from_list(rows).to_parquet(path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


@pytest.mark.parametrize("name", FORMATS)
def test_the_lines_of_the_recipe_give_the_reference_answers(name, data_file):
    rows, fields, wanted = FORMATS[name]
    loaded, _ = load(RunArguments(dataset_name=data_file(rows), **fields), evaluation=False)
    assert loaded["solution"] == wanted
    for prompt in loaded["prompt"]:
        assert isinstance(prompt, str) or ([message["role"] for message in prompt] == ["user"] and prompt[0]["content"])


@pytest.fixture(scope="module")
def maths():
    return get_reward("math", workers=1)


@pytest.mark.parametrize("name", FORMATS)
def test_the_reference_answers_grade_themselves(name, data_file, maths):
    rows, fields, wanted = FORMATS[name]
    loaded, _ = load(RunArguments(dataset_name=data_file(rows), **fields), evaluation=False)
    assert maths.check_references(**loaded.to_dict()) == ["ok"] * len(wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FORMATS if "whole" not in name])
def test_a_recipe_takes_two_steps(name, tmp_path, boxing_model):
    rows, fields, _ = FORMATS[name]
    path = tmp_path / "rows.parquet"
    Dataset.from_list(rows * 4).to_parquet(path)
    mappings = [word for field, value in fields.items() for word in (f"--{field}", json.dumps(value))]
    train.main(
        [TINY, "--model_name_or_path", boxing_model, "--dataset_name", str(path), *mappings]
        + ["--output_dir", str(tmp_path / "run"), "--reward_funcs", "math", "--reward_kwargs", "{math: {workers: 1}}"]
        + ["--per_device_train_batch_size", "8", "--max_completion_length", "12"]
        + ["--max_steps", "2", "--logging_steps", "1", "--max_prompt_tokens", "60"]
    )
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics] == [1, 2]
    assert all(row["reward"] is not None and row["rewards/math/no_gold"] == 0 for row in metrics)
