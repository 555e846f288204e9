"""`python -m evals.evaluate`: its output, and its errors before a model is loaded."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from evals.evaluate import command, settings
from evals.evaluate.checkpoint import Checkpoint
from evals.shared.results import Evaluation

ROOT = Path(__file__).parents[3]


@pytest.fixture
def questions_file(tmp_path):
    path = tmp_path / "questions.jsonl"
    rows = [{"problem": f"{a}+{a}=", "answer": str(2 * a), "unread": {"a": a}} for a in range(5)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


COLUMNS = ("--columns", '{"problem": "prompt", "answer": "solution"}')
SMALL = ("--samples", "2", "--max_tokens", "4", "--reward", "exact_match")


def test_the_command_as_a_user_types_it(model, other_model, questions_file, tmp_path):
    words = [sys.executable, "-m", "evals.evaluate", model, other_model, questions_file, *COLUMNS, *SMALL]
    words += ["--reference", model, "--output", str(tmp_path / "out.json")]
    runs = [subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False) for _ in range(2)]
    assert [done.returncode for done in runs] == [0, 0], runs[0].stderr[-3000:]
    assert "cached" not in runs[0].stdout and runs[1].stdout.count(": cached, ") == 2
    for word in ("pass@1", "pass@2", "majority@2", "greedy", "mean length", "truncated", "KL"):
        assert runs[0].stdout.count(word) == 2, word
    assert (
        f"Difference to {model}, paired by question, with 95 % intervals:\n  {other_model}: mean@2 " in runs[0].stdout
    )
    written = json.loads((tmp_path / "out.json").read_text())
    assert [one["model"] for one in written] == [model, other_model]
    for one in written:
        assert one["evaluation"].keys() == {field.name for field in dataclasses.fields(Evaluation)}
        assert len(one["evaluation"]["scores"]) == 5 and one["evaluation"]["samples"] == 2
        assert one["settings"]["temperature"] == 0.6 and one["settings"]["engine"] == "transformers"
    assert written[0]["evaluation"]["kl_to_start"] == pytest.approx(0, abs=1e-6)
    assert written[1]["evaluation"]["kl_to_start"] > 0.01


@pytest.mark.parametrize(("score", "says"), [(0.5, True), (0.25, False)])
def test_a_graded_reward_says_what_pass_at_k_counts(score, says):
    """One of four samples has reward 1. With a mean of 0.5 the others are graded; with 0.25 they are 0."""
    lines = command.summary_lines(Evaluation(0, 4, [score] * 3, [1] * 3, None, [1.0] * 3, None, 2.0, 0.0))
    assert "pass@1        0.2500" in lines
    assert ("pass@k counts a completion as right if its reward is 1." in lines) == says


def test_a_generated_task_uses_questions_that_training_does_not(model, capsys):
    for kwargs, word in (("{size: 3}", "questions     3"), ("{size: 2, seed: 0}", "questions     2")):
        command.main([model, "arithmetic", *SMALL, "--dataset_kwargs", kwargs])
        assert word in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["MODEL"], "data set last"),
        (["MODEL", "nowhere.jsonl", *SMALL], "'nowhere.jsonl'"),
        (["MODEL", "FILE", *SMALL], "'prompt'"),
        (["MODEL", "FILE", *SMALL, "--columns", '{"problem": "prompt"}'], "'solution'"),
        (["MODEL", "FILE", *SMALL, "--columns", '{"nothing": "prompt"}'], "'nothing'"),
        (["MODEL", "FILE", *COLUMNS, "--reward", "mathh"], "'mathh'"),
        (["MODEL", "FILE", *COLUMNS, "--reward", "math", "--reward_kwargs", '{"wrokers": 1}'], "wrokers"),
        (["MODEL", "FILE", *COLUMNS], "Write --reward"),
        (
            [
                "MODEL",
                "FILE",
                *COLUMNS,
                "--reward",
                "soft_overlong",
                "--reward_kwargs",
                "{soft_overlong: {soft_buffer: 9}}",
            ],
            "--reward_kwargs '{\"soft_buffer\": 9}'",
        ),
        (["MODEL", "FILE", *COLUMNS, *SMALL, "--chat_template_kwargs", "{tools: 1}"], "contains tools"),
        (["MODEL", "FILE", *COLUMNS, *SMALL, "--max_prompt_length", "9"], "Did you mean --max_prompt_tokens?"),
        (["MODEL", "--dataset", "FILE", *COLUMNS, *SMALL], "without a flag: gbpo evaluate MODEL [MODEL ...] [DATASET]"),
        (["MODEL", "FILE", *COLUMNS, *SMALL, "--samples", "0"], "samples=0"),
        (["MODEL", "FILE", *COLUMNS, *SMALL, "--samples", "two"], "invalid int value: 'two'"),
        (["MODEL", "FILE", *COLUMNS, *SMALL, "--temperature", "0"], "temperature=0"),
        (["MODEL", "FILE", *COLUMNS, *SMALL, "--temperature", "nan"], "temperature=nan"),
        (["MODEL", "FILE", *COLUMNS, *SMALL, "--top_p", "1.5"], "top_p=1.5"),
        (["MODEL", "FILE", *COLUMNS, *SMALL, "--max_tokens", "0"], "max_tokens=0"),
        (["MODEL", "FILE", *COLUMNS, *SMALL, "--seed", "-1"], "seed must be between 0 and 2**32 - 1, got -1"),
        (["MODEL", "FILE", *COLUMNS, *SMALL, "--prompt_template", "Add!"], "{prompt}"),
        (["MODEL", "FILE", *COLUMNS, *SMALL, "--engine", "vllm"], "engine='vllm' is not installed"),
        (["MODEL", "FILE", *COLUMNS, *SMALL, "--output", "no/where.json"], "'no/where.json'"),
        (["MODEL", "FILE", *COLUMNS, *SMALL, "--smaples", "2"], "--smaples"),
        (["runs/nowhere/model", "FILE", *COLUMNS, *SMALL], "'runs/nowhere/model'"),
        (["builtin:tiny", "FILE", *COLUMNS, *SMALL], "'builtin:tiny'"),
        (["MODEL", "./nowhere", "FILE", *COLUMNS, *SMALL], "'./nowhere'"),
        (["MODEL", "FILE", *COLUMNS, *SMALL, "--reference", "./nowhere"], "'./nowhere'"),
    ],
)
def test_bad_input_is_one_line_before_any_model_is_loaded(
    arguments, words, model, questions_file, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(Checkpoint, "load", lambda checkpoint: pytest.fail("a model was loaded"))
    monkeypatch.setattr(settings, "find_spec", lambda name: None)  # vLLM is not installed
    monkeypatch.chdir(tmp_path)
    names = {"MODEL": model, "FILE": questions_file}
    with pytest.raises(SystemExit) as stop:
        command.main([names.get(argument, argument) for argument in arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert words in error and error.count("\n") == 1 and error.startswith("gbpo evaluate: error: "), error


def test_the_command_imports_nothing_slow_before_it_has_checked_its_arguments():
    code = "import sys, evals.evaluate.command; print({'torch', 'trl', 'peft', 'datasets'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    code = "import sys, gbpo.run.rewards, evals.evaluate.evaluation; print('trl' in sys.modules, 'peft' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"
