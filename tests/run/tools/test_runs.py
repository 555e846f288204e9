"""Runs with tools, by the real command: metrics, resume, dry run and comparison."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

import processes
from evals.compare import command as compare
from evals.compare.cell_command import cell_command
from evals.compare.prepare import prepare
from evals.evaluate import command as evaluate
from evals.evaluate.options import parser, settings_of
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
    script = ROOT / "launch" / "gbpo.py"
    processes.run_script(script, TOOLS, *flags, "--output_dir", "whole")
    rows = metrics(my_tools / "whole")
    assert 0 < rows[0]["tools/failure_frequency"] < 1 < 32 * rows[0]["tools/call_frequency"]
    assert {row["gbpo/tool_timeouts"] for row in rows if "gbpo/tool_timeouts" in row} == {0.0}
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
    for checkpoint in ("auto", "again/checkpoint-3"):  # the latter is between the two steps of a generation
        processes.run_script(script, TOOLS, *flags, "--output_dir", "again", "--resume_from_checkpoint", checkpoint)
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


def test_a_comparison_evaluates_with_the_tool(calling_model, my_tools, monkeypatch):
    """The runs get the tool by the recipe, and the evaluations by the flags of the plan."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(my_tools / "cache"))
    overrides = [*map(str, SMALL), "--model_name_or_path", calling_model, "--tool_timeout", "7"]
    options = [str(TOOLS), "--algorithms", "grpo", "gbpo", "--seeds", "0", "--output", "compared"]
    options += ["--eval_questions", "8", "--eval_samples", "2"]
    (my_tools / "compared").mkdir()
    plan = prepare(*compare.make_parser().parse_known_args([*options, *overrides]), "")
    for point, seed in plan.cells:
        assert " --tools my_tools.add " in " ".join(cell_command(plan, point, seed))
    flags = parser("").parse_args([calling_model, str(plan.folder / "test.jsonl"), *plan.evaluation])
    settings = settings_of(flags, flags.names[-1], None)
    assert (settings.run.tools, settings.run.tool_timeout, settings.tool_turns) == (["my_tools.add"], 7.0, 2)
    assert not (my_tools / "calls.txt").exists()
    command = [*flags.names, *plan.evaluation, "--reference", calling_model, "--output", "start.json"]
    evaluate.main(command)
    calls = (my_tools / "calls.txt").read_text().splitlines()
    assert len(calls) > 2
    evaluate.main(command)  # from the cache, which depends on the tool's source
    assert (my_tools / "calls.txt").read_text().splitlines() == calls
    with (my_tools / "my_tools.py").open("a") as file:
        file.write("\n")
    evaluate.main(command)
    assert (my_tools / "calls.txt").read_text().splitlines() == calls + calls
    (written,) = json.loads((my_tools / "start.json").read_text())
    assert written["settings"]["tools"] == ["my_tools.add"]
    assert written["evaluation"]["kl_to_start"] == pytest.approx(0, abs=1e-6)
