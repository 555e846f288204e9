"""Runs with tools, by the real command: metrics, resume, dry run and comparison."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from gbpo.run import train

ROOT = Path(__file__).parents[3]
TOOLS = ROOT / "recipes" / "tiny_tools.yaml"
SMALL = ("--tools", "my_tools.add", "--per_device_train_batch_size", 16, "--logging_steps", 1)
TIMES = ("time/", "step_time", "elapsed", "peak_memory_gb")


def metrics(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.startswith(TIMES)} for row in rows]


def test_a_run_that_is_killed_between_two_turns_resumes_exactly(launch, calling_model, my_tools):
    """Checkpoints after each of the two steps of a generation; the run is killed in the third generation."""
    flags = (*SMALL, "--model_name_or_path", calling_model, "--max_steps", 6, "--seed", 5)
    flags += ("--save_strategy", "steps", "--save_steps", 1, "--num_completions_to_print", 0)
    whole = launch(TOOLS, *flags, "--output_dir", "whole")
    assert whole.returncode == 0, whole.stderr[-3000:]
    rows = metrics(my_tools / "whole")
    assert 0 < rows[0]["tools/failure_frequency"] < 1 < 32 * rows[0]["tools/call_frequency"]
    assert [row["gbpo/tool_timeouts"] for row in rows if "gbpo/tool_timeouts" in row] == [0.0] * len(rows)
    calls = (my_tools / "calls.txt").read_text().splitlines()
    of_two_generations = round(32 * sum(rows[step]["tools/call_frequency"] for step in (0, 2)))
    assert of_two_generations < len(calls)
    (my_tools / "calls.txt").unlink()

    at = next(i for i in range(of_two_generations + 4, len(calls)) if not calls[i - 1].startswith("9"))
    (my_tools / f"kill_at_{at}").touch()  # some calls of the third generation are done
    killed = launch(TOOLS, *flags, "--output_dir", "again")
    assert killed.returncode == -9
    assert (my_tools / "calls.txt").read_text().splitlines() == calls[:at]
    assert (my_tools / "again" / "checkpoint-4").is_dir()

    (my_tools / f"kill_at_{at}").unlink()
    between = ("--resume_from_checkpoint", "again/checkpoint-3")  # between the two steps of the second generation
    for resumed in (between, ("--resume_from_checkpoint", "auto")):
        done = launch(TOOLS, *flags, "--output_dir", "again", *resumed)
        assert done.returncode == 0, done.stderr[-3000:]
        assert metrics(my_tools / "again")[-2:] == rows[-2:]
        models = [load_file(my_tools / name / "model" / "model.safetensors") for name in ("whole", "again")]
        assert all(models[0][name].equal(models[1][name]) for name in models[0])


def test_the_dry_run_says_what_can_be_called(calling_model, my_tools, capsys):
    tools = ("--tools", "my_tools.add", "builtin:calculator", "--tool_timeout", "3")
    train.main([str(TOOLS), *tools, "--model_name_or_path", calling_model, "--dry_run", "true"])
    page = capsys.readouterr().out
    assert "names  my_tools.add, builtin:calculator" in page
    assert "limits 2 turns with calls, 32 tokens for all turns with the answers of the tools, 3 s per call" in page
    assert not (my_tools / "calls.txt").exists()


def test_the_default_number_of_turns(my_tools):
    recipe = my_tools / "recipe.yaml"
    recipe.write_text(TOOLS.read_text().replace("max_tool_calling_iterations: 2", ""))
    assert train.parse([str(recipe)]).training.max_tool_calling_iterations == 8
    assert train.parse([str(recipe.parent / recipe.name), "--tools", "my_tools.add"]).run.tools == ["my_tools.add"]


@pytest.mark.slow
def test_grpo_and_gbpo_are_compared_with_the_tool(calling_model, my_tools):
    """Every completion of the evaluation that calls the tool gets its answer."""
    command = [sys.executable, "-m", "evals.compare", str(TOOLS), "--algorithms", "grpo", "gbpo", "--seeds", "0"]
    command += ["--output", "compared", "--eval_questions", "8", "--eval_samples", "4", "--eval_steps", "2"]
    command += [*map(str, SMALL), "--model_name_or_path", calling_model, "--max_steps", "2"]
    environment = {"PYTHONPATH": f"{my_tools}:{ROOT}", "XDG_CACHE_HOME": str(my_tools / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=900)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    results = json.loads((my_tools / "compared" / "results.json").read_text())
    assert [cell["status"] for cell in results["cells"]] == ["done", "done"]
    assert results["evaluation"]["tools"] == ["my_tools.add"] and results["evaluation"]["tool_turns"] == 2
