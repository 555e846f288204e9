"""`python -m evals.compare`: failed runs, interrupted comparisons, and bad input."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from evals.compare import command as module
from evals.shared.results import Results
from templates import NO_SYSTEM

ROOT = Path(__file__).parents[3]
TINY = ROOT / "recipes" / "tiny_math.yaml"

# A reward that differs between the completions of an untrained model. The file `broken` makes GBPO fail.
REWARD = """
import pathlib, sys
def ord_mod_3(completions, **kwargs):
    if pathlib.Path("broken").exists() and "--algorithm gbpo" in " ".join(sys.argv):
        raise OSError("the grader is unavailable")
    return [float(sum(map(ord, c[0]["content"])) % 3) for c in completions]
"""
SMALL = [
    *(
        "--reward_funcs",
        "own.ord_mod_3",
        "--dataset_kwargs",
        "{size: 64, max_operand: 19}",
        "--max_completion_length=3",
    ),
    *("--per_device_train_batch_size=16", "--max_steps=8", "--logging_steps=1", "--eval_steps=2"),
    *("--eval_questions=16", "--eval_samples=4"),
]


@pytest.fixture
def command(random_model, tmp_path):
    """`command(*flags)` → words of a command that compares two algorithms in `compared`, to be run in tmp_path."""
    (tmp_path / "own.py").write_text(REWARD)

    def words(*flags):
        base = [sys.executable, "-m", "evals.compare", str(TINY), "--algorithms", "grpo", "gbpo", "--output=compared"]
        return [*base, f"--model_name_or_path={random_model}", *SMALL, *flags]

    return words


@pytest.fixture
def environment(tmp_path):
    """Environment of the processes: this checkout, and an empty cache."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache")}


def test_a_failed_run_is_reported_and_the_others_continue(command, environment, tmp_path):
    def run():
        words = command("--seeds", "0", "--jobs=2")
        return subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1200)

    (tmp_path / "broken").touch()
    done = run()
    assert done.returncode == 1, done.stdout + done.stderr
    results = Results.load(tmp_path / "compared")
    assert {cell.algorithm: cell.status for cell in results.cells} == {"grpo": "done", "gbpo": "failed"}
    grpo, failed = results.cells
    assert "the grader is unavailable" in failed.reason and any(
        "the grader is unavailable" in line for line in failed.tail
    )
    assert "1 of 2 runs are not done" in done.stdout
    page = (tmp_path / "compared" / "report.html").read_text()
    assert "the grader is unavailable" in page
    check_done(grpo)
    assert results.start.kl_to_start == 0 and grpo.last.kl_to_start > 0
    assert len(results.questions) == 8 == len(results.start.scores)
    trained = {json.loads(line)["prompt"] for line in (tmp_path / "compared" / "validation.jsonl").open()}
    assert not trained & {question["prompt"] for question in results.questions}

    (tmp_path / "broken").unlink()
    models = sorted((tmp_path / "compared" / "cells").rglob("run/model/model.safetensors"))
    written = {path: path.stat().st_mtime_ns for path in models}
    assert len(written) == 1
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    again, gbpo = Results.load(tmp_path / "compared").cells
    assert again == grpo
    check_done(gbpo)
    # same starting model and questions, but different training
    assert grpo.series["eval_reward"][0] == gbpo.series["eval_reward"][0]
    assert grpo.series["grad_norm"] != gbpo.series["grad_norm"]
    assert {path: path.stat().st_mtime_ns for path in written} == written  # finished runs were not repeated
    assert "With one seed there is no confidence interval" in done.stdout
    rebuilt = subprocess.run(
        [sys.executable, "-m", "evals.report", "compared"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert "the grader is unavailable" not in (tmp_path / "compared" / "report.html").read_text()


def check_done(cell):
    assert cell.command.startswith("python launch/gbpo.py ") and f"--seed={cell.seed}" in cell.command
    assert cell.seconds > cell.train_seconds > 0 and cell.tokens > 0 and cell.peak_memory_gb > 0
    assert (cell.updates_per_generation, cell.completions_per_generation) == (2, 32)
    assert cell.series["step"][-1] == 8 == cell.last.step
    validated = [
        (step, value)
        for step, value in zip(cell.series["step"], cell.series["eval_reward"], strict=True)
        if value is not None
    ]
    assert [step for step, _ in validated] == [0, 2, 4, 6, 8]
    trained = cell.series["rewards/ord_mod_3/mean"]
    assert any(trained) and trained == cell.series["reward"]
    single = [value for value in cell.series["eval_rewards/ord_mod_3/mean"] if value is not None]
    assert single == pytest.approx([value for _, value in validated])  # the recipe has one reward, of weight 1
    highest = max(value for step, value in validated if step)
    assert cell.best.step == min(step for step, value in validated if value == highest and step)
    for found in (cell.last, cell.best):
        assert found.samples == 4 and len(found.scores) == len(found.greedy) == len(found.majority) == 8
    assert (cell.last.scores == cell.best.scores) or cell.best.step < 8


def test_a_killed_comparison_resumes_to_the_same_result(command, environment, tmp_path):
    words = command("--seeds", "0", "--algorithms", "grpo")
    folder = tmp_path / "compared" / "cells" / "grpo" / "all" / "seed-0" / "run"
    first = subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    wait_for(lambda: any(folder.glob("checkpoint-[2-6]/trainer_state.json")))
    first.kill()  # with SIGKILL it cannot end its run, so the test does
    first.wait()
    runs = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and str(folder) in command_line(pid)]
    assert runs
    for pid in runs:
        os.kill(pid, signal.SIGKILL)
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(folder.glob("config-from-*.json"))  # it resumed from a checkpoint
    [cell] = Results.load(tmp_path / "compared").cells
    assert cell.status == "done"
    # the same run without interruption, with the command from the report
    whole = tmp_path / "whole"
    shown = cell.command.replace(str(folder), str(whole)).replace("python launch/", f"{sys.executable} {ROOT}/launch/")
    run = {"cwd": tmp_path, "env": environment, "stdout": subprocess.DEVNULL}
    subprocess.run(shlex.split(shown), **run, check=True, timeout=1200)
    resumed, uninterrupted = (load_file(path / "model" / "model.safetensors") for path in (folder, whole))
    assert all((resumed[name] == value).all() for name, value in uninterrupted.items())


def test_a_comparison_that_is_told_twice_to_end_ends_at_once_without_a_traceback(
    command, environment, tmp_path, request
):
    """The only run ignores the first signal, so the comparison would wait for it for 20 seconds."""
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    words = command("--seeds", "0", "--algorithms", "grpo", f"--launcher={sys.executable} {tmp_path / 'stubborn.py'}")
    pipe = subprocess.PIPE
    compared = subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe, text=True)
    request.addfinalizer(compared.kill)
    wait_for((tmp_path / "started").exists)
    compared.send_signal(signal.SIGINT)
    wait_for((tmp_path / "told").exists)
    assert compared.poll() is None and command_line((tmp_path / "started").read_text())
    compared.send_signal(signal.SIGTERM)
    wait_for(lambda: not command_line((tmp_path / "started").read_text()), seconds=12)
    output, errors = compared.communicate(timeout=300)
    assert compared.returncode == 130 and "Traceback" not in output + errors
    assert "1 of 1 runs are not done" in output


STUBBORN = """
import os, pathlib, signal, time
signal.signal(signal.SIGTERM, lambda *_: pathlib.Path("told").touch())
pathlib.Path("started").write_text(str(os.getpid()))
for _ in range(6000): time.sleep(0.05)
"""


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (ValueError("bad input"), 2)])
def test_an_end_before_the_runs_leaves_no_traceback_and_no_folder(monkeypatch, tmp_path, capsys, error, status):
    def ends(*args):
        raise error

    monkeypatch.setattr(module, "prepare", ends)
    with pytest.raises(SystemExit) as end:
        module.main([str(TINY), "--algorithms", "grpo", "--seeds", "0", "--output", str(tmp_path / "compared")])
    assert end.value.code == status and "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "compared").exists()


def wait_for(condition, seconds=600.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


WRONG = {
    "the same steps": (["--algorithms", "gbpo", "gbpo:target_baseline=median"], ["cannot show a difference"]),
    "one update": (
        ["--algorithms", "grpo", "gbpo:target_baseline=exact", "--steps_per_generation=1"],
        ["cannot show a difference", "num_iterations"],
    ),
    "another batch": (["--algorithms", "grpo", "gbpo:num_generations=4"], ["num_generations"]),
    "unknown algorithm": (["--algorithms", "ppo"], ["ppo", "gbpo"]),
    "algorithms with commas": (
        ["--algorithms", "grpo,gbpo:target_baseline=exact,overshoot_slope=0.2,gbpo"],
        ["by spaces: --algorithms grpo gbpo:target_baseline=exact,overshoot_slope=0.2 gbpo."],
    ),
    "seeds with commas": (["--seeds", "0,1"], ["'0,1' is not an integer", "by spaces: --seeds 0 1."]),
    "a range of seeds": (["--seeds", "0-4"], ["'0-4' is not an integer", "--seeds 0 1 2."]),
    "unknown field": (["--epsilom=0.3"], ["epsilom", "epsilon"]),
    "seed twice": (["--seeds", "1", "1"], ["--seeds", "repeats"]),
    "seed as a field": (["--seed=3"], ["seed would be overwritten", "write --seeds"]),
    "seed in the grid": (["--grid", "seed=1,2"], ["seed would be overwritten", "write --seeds"]),
    "algorithm in the grid": (["--grid", "algorithm=grpo,gbpo"], ["algorithm would be", "write --algorithms"]),
    "seed of an algorithm": (["--algorithms", "grpo", "gbpo:seed=3"], ["seed would be overwritten", "write --seeds"]),
    "output folder as a field": (["--output-dir=mine"], ["output_dir would be overwritten", "write --output"]),
    "negative seed": (["--seeds", "-1"], ["--seeds -1 is not a seed", "from 0 to 4294967295"]),
    "large seed": (["--seeds", "4294967296"], ["--seeds 4294967296 is not a seed", "from 0 to 4294967295"]),
    "no jobs": (["--jobs=0"], ["--jobs 0 would start no run", "1 or more"]),
    "no steps between validations": (["--eval_steps=0"], ["--eval_steps 0", "fraction"]),
    "infinite steps between validations": (["--eval_steps=inf"], ["--eval_steps inf", "fraction"]),
    "negative questions": (["--eval_questions=-8"], ["--eval_questions -8", "2 or more"]),
    "unknown launcher": (["--launcher=acelerate launch"], ["'acelerate launch'", "no command 'acelerate'"]),
    "open quotation mark": (["--launcher=accelerate 'launch"], ["No closing quotation", "--launcher"]),
    "dry run": (["--dry_run=true"], ["dry_run=True", "gbpo train"]),
    "revision": (["--model_revision=v2"], ["model_revision='v2'", "model_name_or_path"]),
    "prompts in the grid": (["--grid", "system_prompt=Add.,Sum."], ["--grid system_prompt=…", "the same test"]),
    "questions in the grid": (["--grid", "dataset_name=a.jsonl,b.jsonl"], ["dataset_name=…", "--eval_dataset_name"]),
    "template in the grid": (["--grid", "chat_template_kwargs={}"], ["chat_template_kwargs=…", "the same test"]),
    "output is a file": (["--output=problems.jsonl"], ["'problems.jsonl'", "File exists", "another --output"]),
    "missing recipe": (["nowhere.yaml"], ["nowhere.yaml"]),
    "no held-out questions": (["--dataset_name=problems.jsonl"], ["problems.jsonl", "eval_dataset_name"]),
    "one held-out question": (["--eval_questions=1"], ["1", "--eval_questions"]),
    "held-out file missing": (["--eval_dataset_name=gone.jsonl"], ["gone.jsonl"]),
    "majority as the test": (["--reward_funcs=majority_vote"], ["majority_vote", "--eval_reward"]),
    "folder of something else": (["--output=full"], ["full", "empty folder"]),
    "unknown model": (["--model_name_or_path=./nowhere"], ["./nowhere"]),
    "no samples": (["--eval_samples=0"], ["samples=0"]),
    "system prompt that the template refuses": (
        ["--chat_template_path=strict.jinja", "--system_prompt=Be brief."],
        ["chat_template_path='strict.jinja'", "system_prompt='Be brief.'", "prompt_template"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_one_line_before_anything_runs(case, tmp_path, monkeypatch, capsys, random_model):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strict.jinja").write_text(NO_SYSTEM)
    (tmp_path / "problems.jsonl").write_text('{"prompt": "1+1=", "solution": "2"}\n' * 64)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    flags, words = WRONG[case]
    recipe = [flags[0], *flags[1:]] if case == "missing recipe" else [str(TINY), *flags]
    defaults = ["--algorithms", "grpo", "gbpo", "--seeds", "0", "--output=compared"]
    defaults.append(f"--model_name_or_path={random_model}")
    argv = [recipe[0], *defaults, *recipe[1:]]  # later options win
    with pytest.raises(SystemExit) as stop:
        module.main(argv)
    error = capsys.readouterr().err.strip()
    assert stop.value.code == 2
    assert error.startswith("gbpo compare: error:") and error.count("\n") == 0
    assert all(word in error for word in words), error
    assert not (tmp_path / "compared").exists()
    assert (tmp_path / "full" / "thesis.tex").read_text() == "years of work"


def test_rewards_that_are_switched_off_are_printed_and_noted(random_model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "run_cells", lambda plan: False)
    argv = [str(TINY), "--algorithms", "grpo", "gbpo", "--seeds", "0", f"--output={tmp_path}", "--max_steps=9"]
    with pytest.raises(SystemExit):
        module.main([*argv, f"--model_name_or_path={random_model}", "--reward_funcs=math"])
    (note,) = [note for note in Results.load(tmp_path).notes if "math reads the answer from" in note]
    assert f"gbpo compare: warning: {note}\n" in capsys.readouterr().err


def test_prompts_that_depend_on_the_rewards_are_noted(random_model, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "run_cells", lambda plan: False)
    argv = [str(TINY), "--algorithms", "grpo", "gbpo", "--seeds", "0", "--max_steps=9"]
    argv.append(f"--model_name_or_path={random_model}")
    for folder, flags in (("plain", []), ("chosen", ["--difficulty", "{low: 0.1, high: 0.9}"])):
        with pytest.raises(SystemExit):
            module.main([*argv, f"--output={tmp_path / folder}", *flags])
    noted = [str(Results.load(tmp_path / name).notes).count("difficulty chooses") for name in ("plain", "chosen")]
    assert noted == [0, 1]


def test_questions_that_the_runs_would_drop_are_not_written(random_model, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "run_cells", lambda plan: False)
    argv = [str(TINY), "--algorithms", "grpo", "gbpo", "--seeds", "0", f"--output={tmp_path}", "--max_steps=9"]
    with pytest.raises(SystemExit):
        # three tokens of the chat template and five characters, such as 9+12=
        module.main([*argv, f"--model_name_or_path={random_model}", "--max_prompt_tokens=8"])
    questions = Results.load(tmp_path).questions
    assert questions and max(len(question["prompt"]) for question in questions) == 5


def test_a_folder_accepts_only_comparable_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "run_cells", lambda plan: False)
    argv = ["--algorithms", "grpo", "gbpo", "--seeds", "0", f"--output={tmp_path / 'compared'}"]

    def status(*flags, recipe=TINY):
        with pytest.raises(SystemExit) as stop:
            module.main([str(recipe), *argv, *flags])
        return stop.value.code, capsys.readouterr().err

    assert status("--max_steps=50")[0] == 1  # no run is done
    for changed in (["--max_steps=60"], ["--max_steps=50", "--eval_samples=4"], []):
        code, error = status(*changed)
        assert code == 2 and "another" in error and "--output" in error
    edited = tmp_path / "edited.yaml"
    edited.write_text(f"{TINY.read_text()}\nweight_decay: 0.1\n")
    code, error = status("--max_steps=50", recipe=edited)
    assert code == 2 and "another recipe, which" in error
    edited.write_text(f"# A comment changes no run.\n{TINY.read_text()}")
    assert status("--max_steps=50", recipe=edited)[0] == 1
    more = ["--max_steps=50", "--seeds", "0", "1", "--grid", "num_iterations=2,4"]
    code, error = status(*more)
    assert code == 1, error
    assert len(Results.load(tmp_path / "compared").cells) == 8


def test_a_folder_accepts_only_the_same_questions(random_model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "run_cells", lambda plan: False)
    monkeypatch.chdir(tmp_path)
    argv = [str(TINY), "--algorithms", "grpo", "gbpo", "--seeds", "0", "--output=compared", "--max_steps=9"]
    argv += [f"--model_name_or_path={random_model}", "--eval_dataset_name=held_out.jsonl"]
    argv += ["--dataset_name=train.jsonl", "--dataset_kwargs={}"]

    def status(*sums, trained=1):
        for name, terms in (("held_out", sums), ("train", [(trained, b) for b in range(64)])):
            rows = [{"prompt": f"{a}+{b}=", "solution": str(a + b)} for a, b in terms]
            (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        with pytest.raises(SystemExit) as stop:
            module.main(argv)
        return stop.value.code, capsys.readouterr().err

    assert status((101, 2), (103, 4))[0] == 1  # no run is done
    written = (tmp_path / "compared" / "test.jsonl").read_text()
    code, error = status((101, 2), (103, 5))
    assert code == 2 and "test.jsonl' has other questions than the data set has now" in error
    assert (tmp_path / "compared" / "test.jsonl").read_text() == written
    code, error = status((101, 2), (103, 4), trained=2)
    assert code == 2 and "contains runs with another training_file, which are not comparable" in error
    assert status((101, 2), (103, 4))[0] == 1


def test_a_grid_over_the_sampling_says_how_the_models_are_tested(random_model, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "run_cells", lambda plan: False)
    argv = [str(TINY), "--algorithms", "grpo", "gbpo", "--seeds", "0", "--max_steps=9"]
    argv += [f"--model_name_or_path={random_model}", "--grid", "temperature=0.7,1.0"]
    for folder, flags in (("first", []), ("given", ["--eval_temperature=1"])):
        with pytest.raises(SystemExit):
            module.main([*argv, f"--output={tmp_path / folder}", *flags])
    noted = [
        str(Results.load(tmp_path / name).notes).count("tested with temperature=0.7") for name in ("first", "given")
    ]
    assert noted == [1, 0]


def test_parallel_runs_do_not_share_a_vllm_server(random_model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("gbpo.run.recipe.checks.find_spec", lambda name: object())  # as if vLLM was installed
    monkeypatch.setattr(module, "run_cells", lambda plan: False)
    argv = [str(TINY), "--algorithms", "grpo", "gbpo", "--seeds", "0", f"--output={tmp_path / 'compared'}"]
    argv += [f"--model_name_or_path={random_model}", "--use_vllm=true", "--vllm_mode=server"]
    for flags, status in (["--jobs=2"], 2), ([], 1):
        with pytest.raises(SystemExit) as stop:
            module.main([*argv, *flags])
        error = capsys.readouterr().err
        assert stop.value.code == status and ("vllm_mode='server'" in error) == (status == 2), error


def test_an_error_of_the_disk_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def fails(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "prepare", fails)
    with pytest.raises(SystemExit) as stop:
        module.main([str(TINY), "--algorithms", "grpo", "--seeds", "0", "--output", str(tmp_path / "compared")])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "No space left on device. The comparison ended, and its finished runs" in error
