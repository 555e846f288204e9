"""Runs of recipes with environments through the real command."""

import json
import signal
import sys
from pathlib import Path

import pandas
import pytest

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
    train.main([str(RECIPE), *SHORT, *flags, "--output_dir", str(tmp_path)])
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
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
    here = ["env", f"PYTHONPATH={Path(__file__).parent}:{ROOT}", sys.executable]
    whole = launch(RECIPE, *flags, "--output_dir", tmp_path / "whole", launcher=here)
    assert whole.returncode == 0, whole.stderr[-3000:]
    (tmp_path / "kill").touch()
    killed = launch(RECIPE, *flags, "--output_dir", tmp_path / "again", launcher=here)
    assert killed.returncode == -signal.SIGKILL and not (tmp_path / "kill").exists(), killed.stderr[-3000:]
    assert [path.name for path in (tmp_path / "again").glob("checkpoint-*")] == ["checkpoint-3"]
    resumed = launch(
        RECIPE, *flags, "--output_dir", tmp_path / "again", "--resume_from_checkpoint", "auto", launcher=here
    )
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    for name in ("model/model.safetensors", *(f"completions/completions_{step:05d}.parquet" for step in (5, 7))):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert len(completions_of(tmp_path / "whole")["completion"].map(str).unique()) > 8
