"""A recipe with `generate_ahead`, run with the stand-in server."""

import json
from pathlib import Path

import pytest

from evals.bench.stand_in import served
from evals.bench.vllm_server import weights_by_file
from gbpo.run import train
from gbpo.run.recipe import checks

RECIPE = Path(__file__).parents[2] / "recipes" / "qwen_math_ahead.yaml"
SHORT = (
    "--generation_batch_size 64 --optimizer_batch_size 32 --max_completion_length 16 --max_steps 12 --logging_steps 1"
)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["gbpo", "grpo"])
def test_the_recipe_runs_with_a_server(boxing_model, problems, tmp_path, monkeypatch, algorithm):
    """3 generations with 4 optimiser steps each. Only model, data, sizes and device differ from the recipe."""
    monkeypatch.setattr(checks, "find_spec", lambda package: package)  # vLLM is not installed here
    with served(boxing_model) as server, weights_by_file():
        data = ["--dataset_name", problems, "--dataset_columns", "{problem: prompt, answer: solution}"]
        flags = [*data, *SHORT.split(), "--vllm_server_port", str(server.server_port), "--bf16", "false"]
        flags += ["--model_name_or_path", boxing_model, "--algorithm", algorithm, "--learning_rate", "1e-3"]
        train.main([str(RECIPE), *flags, "--output_dir", str(tmp_path / "run")])
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    ages = {row["step"]: row["gbpo/staleness/max"] for row in rows if "gbpo/staleness/max" in row}
    assert ages and all(age == (step - 1 if step <= 4 else 4 + (step - 1) % 4) for step, age in ages.items())
    assert all("time/wait" in row for row in rows)
    assert server.seen["loads"] == 2 and server.seen["loads_while_sampling"] == 0
    asked = [tuple(row) for row in server.seen["prompts"]]
    assert len(asked) == len(set(asked))
