"""Every shipped recipe: parsed, and opened by what a reader needs; the main one run as it stands."""

import json
import math
from pathlib import Path

import pandas
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from gbpo.run import recipe as recipes

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))


def test_there_are_recipes():
    assert {path.stem for path in RECIPES} >= {
        *("tiny_math", "tiny_code", "tiny_ttrl", "gemma_cpu"),
        *("qwen_math", "qwen_math_lora", "qwen_ttrl"),
    }


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
@pytest.mark.parametrize("algorithm", ["gbpo", "grpo"])
def test_parses_for_both_algorithms(path, algorithm):
    parsed = recipes.parse([str(path), "--algorithm", algorithm])
    assert type(parsed.training).__name__ == {"gbpo": "GBPOConfig", "grpo": "GRPOConfig"}[algorithm]
    assert parsed.run.algorithm == algorithm
    updates = parsed.training.steps_per_generation * parsed.training.num_iterations
    assert updates > parsed.training.gradient_accumulation_steps, "the bound never acts with one update per generation"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_header_says_what_how_where_and_what_to_expect(path):
    header = [line for line in path.read_text().split("\n\n")[0].splitlines() if line.startswith("#")]
    text = "\n".join(header)
    assert f"accelerate launch launch/gbpo.py recipes/{path.relative_to(ROOT / 'recipes')}" in text
    for word in ("Hardware:", "Time"):
        assert word in text
    assert len(header) >= 6


def read_rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("algorithm", ["gbpo", "grpo"])
def test_qwen_math_as_it_stands(launch, boxing_model, problems, tmp_path, algorithm):
    """Only model path, data file and number of steps overridden."""
    done = launch(
        ROOT / "recipes" / "qwen_math.yaml",
        "--model_name_or_path",
        boxing_model,
        "--dataset_name",
        problems,
        "--max_steps",
        20,
        "--algorithm",
        algorithm,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "runs" / "qwen_math"
    rows = read_rows(folder)
    assert [row["step"] for row in rows] == [10, 20]
    for row in rows:
        for name in ("loss", "reward", "entropy", "kl", "completions/mean_length"):
            assert math.isfinite(row[name])
        assert ("gbpo/ratio_error" in row) == (algorithm == "gbpo")
        assert 0 < row["reward"] < 1  # the maths reward told right digits from wrong ones
    config = json.loads((folder / "config.json").read_text())
    assert config["run"]["algorithm"] == algorithm
    assert config["training"]["epsilon"] == 0.3 and config["training"]["num_iterations"] == 10
    assert config["model"]["model_name_or_path"] == boxing_model
    assert set(config) >= {"git_revision", "versions", "command", "recipe", "gbpo"}
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(folder / "model")
    assert model.num_parameters() > 1e5
    samples = pandas.concat(map(pandas.read_parquet, sorted((folder / "completions").glob("*.parquet"))))
    assert {"prompt", "completion", "math", "advantage", "math/status"} <= set(samples.columns)
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("qwen_math: reward 0.") and last.endswith("runs/qwen_math")
    for name in ("curves.png", "metrics.jsonl", "completions", "model"):
        assert str(Path("runs/qwen_math") / name) in done.stdout


def test_qwen_math_lora_saves_the_adapter_alone(launch, boxing_model, problems, tmp_path):
    done = launch(
        ROOT / "recipes" / "qwen_math_lora.yaml",
        *("--model_name_or_path", boxing_model, "--dataset_name", problems, "--max_steps", 2, "--dtype", "float32"),
        *("--logging_steps", 1),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    model = tmp_path / "runs" / "qwen_math_lora" / "model"
    assert (model / "adapter_model.safetensors").is_file() and not (model / "model.safetensors").exists()
