"""Runs of recipes with environments through the real command."""

import json
import signal
import sys
from pathlib import Path

import pandas
import pytest
import torch
from transformers import AutoModelForCausalLM

import processes
from gbpo.run import train

ROOT = Path(__file__).parents[3]
RECIPE = ROOT / "recipes" / "tiny_environment.yaml"
# one generation: 2 prompts × 8 completions; 2 optimiser steps
SHORT = "--per_device_train_batch_size 8 --logging_steps 1 --max_completion_length 40 --learning_rate 1e-3".split()


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def completions_of(folder):
    return pandas.concat(map(pandas.read_parquet, sorted((folder / "completions").glob("*.parquet"))))


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["gbpo", "grpo"])
def test_the_recipe_runs(acting_model, tmp_path, algorithm):
    flags = ["--model_name_or_path", acting_model, "--max_steps", "4", "--algorithm", algorithm]
    flags += ["--eval_strategy", "steps", "--eval_steps", "4", "--dataset_kwargs", "{size: 4}"]
    train.main([str(RECIPE), *SHORT, *flags, "--output_dir", str(tmp_path)])
    rows = [row for row in rows_of(tmp_path) if "reward" in row]
    evaluations = [row for row in rows_of(tmp_path) if "eval_reward" in row]
    assert [row["step"] for row in rows] == [1, 2, 3, 4] and [row["step"] for row in evaluations] == [0, 4]
    assert all(row["eval_rewards/CodeWord/broken"] == 0.0 for row in evaluations)
    assert all(row["eval_tools/call_frequency"] > 1 for row in evaluations)
    assert all(row["rewards/CodeWord/broken"] == 0.0 for row in rows)
    assert all(row["tools/call_frequency"] > 1 for row in rows)  # several turns
    table = completions_of(tmp_path)
    assert set(table["CodeWord/status"]) == {"ok"} and "CodeWord" in table.columns


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_samples_resumes_exactly(launch, acting_model, tmp_path, monkeypatch):
    """Checkpoint 3 is between the two optimiser steps of generation 2. The run is killed in generation 3."""
    flags = [*SHORT, "--model_name_or_path", acting_model, "--environment", "rooms.Mortal", "--max_steps", "8"]
    flags += ["--save_strategy", "steps", "--save_steps", "3", "--dataset_kwargs", "{size: 64}"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    here = ["env", f"PYTHONPATH={Path(__file__).parent}:{ROOT}", sys.executable]
    script = (ROOT / "launch" / "gbpo.py", RECIPE, *flags, "--output_dir")
    processes.run_script(*script, tmp_path / "whole")
    (tmp_path / "kill").touch()
    killed = launch(RECIPE, *flags, "--output_dir", tmp_path / "again", launcher=here)
    assert killed.returncode == -signal.SIGKILL and not (tmp_path / "kill").exists(), killed.stderr[-3000:]
    assert [path.name for path in (tmp_path / "again").glob("checkpoint-*")] == ["checkpoint-3"]
    processes.run_script(*script, tmp_path / "again", "--resume_from_checkpoint", "auto")
    for name in ("model/model.safetensors", *(f"completions/completions_{step:05d}.parquet" for step in (5, 7))):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert len(completions_of(tmp_path / "whole")["completion"].map(str).unique()) > 8


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(acting_model, tmp_path):
    found = []
    for count in (1, 2):
        script = (Path(__file__).with_name("two_ranks.py"), acting_model, tmp_path / f"{count}.pt", count)
        processes.run_script(*script, ranks=count)
        found.append(torch.load(tmp_path / f"{count}.pt"))
    alone, both = found
    assert len(both["turns"]) == 2 and both["turns"][0] != both["turns"][1]  # the ranks take different turns
    assert both["means"] == pytest.approx(alone["means"]) and 0 < alone["means"][0] < 2
    start = AutoModelForCausalLM.from_pretrained(acting_model).parameters()
    update = alone["weights"] - torch.cat([p.detach().flatten() for p in start])
    assert update.norm() > 1e-3
    assert (both["weights"] - alone["weights"]).norm() / update.norm() < 1e-5


@pytest.mark.slow
def test_several_environments_in_one_run(acting_model, tmp_path, monkeypatch):
    """The rows take the two environments in turn, and each environment rewards its own."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    flags = ["--environment", "{word: builtin:code_word, questions: rooms.Questions}", "--max_steps", "2"]
    flags += ["--model_name_or_path", acting_model, "--reward_weights", "2", "0.5", "--shuffle_dataset", "false"]
    train.main([str(RECIPE), *SHORT, *flags, "--output_dir", str(tmp_path)])
    table = completions_of(tmp_path)
    word, questions = (table[f"{name}/status"] == "ok" for name in ("word", "questions"))
    assert word.any() and questions.any() and (word ^ questions).all()
    assert table["word"].isna().equals(questions) and table["questions"].isna().equals(word)
    assert table["questions"].max() > 0


@pytest.mark.slow
def test_difficulty_reads_the_reward_of_the_environment_and_not_that_of_the_form(acting_model, tmp_path, capsys):
    """`format` comes first in the recipe. The solve rates are nevertheless those of the environment."""
    flags = ["--reward_funcs", "format", "--difficulty", "{low: 0.1, high: 0.9}", "--dataset_kwargs", "{size: 4}"]
    flags += ["--model_name_or_path", acting_model, "--max_steps", "2", "--seed", "1"]
    train.main([str(RECIPE), *SHORT, *flags, "--output_dir", str(tmp_path)])
    (row,) = [row for row in rows_of(tmp_path) if row.get("step") == 1 and "reward" in row]
    assert row["rewards/format/mean"] != row["rewards/CodeWord/mean"]
    assert row["gbpo/difficulty/solve_rate"] == pytest.approx(row["rewards/CodeWord/mean"])
