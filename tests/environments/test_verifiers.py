"""`verifiers:NAME` with the package verifiers and tasksets of the tests. `make test-verifiers` runs these tests."""

import json
import os
import sys
from pathlib import Path

import pytest
from transformers.utils import get_json_schema

import processes
from gbpo.run import train
from gbpo.run.data.loading import load
from gbpo.run.environments.checks import load_episodes
from gbpo.run.recipe.arguments import RunArguments

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RECIPE = ROOT / "recipes" / "tiny_environment.yaml"
SHORT = "--per_device_train_batch_size 8 --logging_steps 1 --max_completion_length 40 --learning_rate 1e-3".split()

# name of a module → what it exports
TASKSETS = {
    "word_tasks": ["WordTasks"],
    "plain_tasks": ["PlainTasks"],
    "letter_tasks": ["LetterTasks"],
    "loop_tasks": ["LetterTasks", "Loop"],
    "program_tasks": ["LetterTasks", "Program"],
    "prepared_tasks": ["PreparedTasks"],
    "executed_tasks": ["ExecutedTasks"],
    "stopped_tasks": ["StoppedTasks"],
    "open_tasks": ["OpenTasks"],
    "image_tasks": ["ImageTasks"],
    "unscored_tasks": ["UnscoredTasks"],
    "broken_tasks": ["BrokenTasks"],
    "empty_tasks": ["Data"],
    "shared_tasks": ["SharedTasks"],
}


@pytest.fixture(autouse=True, scope="module")
def modules(tmp_path_factory):
    """Puts one module per taskset on the path, and gives the path for other processes."""
    folder = tmp_path_factory.mktemp("modules")
    for name, exports in TASKSETS.items():
        text = f"from verifiers_tasks import {', '.join(exports)}\n__all__ = {exports}\n"
        (folder / f"{name}.py").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.syspath_prepend(HERE)
        yield os.pathsep.join([str(folder), str(HERE), str(ROOT), os.environ.get("PYTHONPATH", "")])


def opened(name, **fields):
    """The rows, and the class of the episodes."""
    run = RunArguments(environment=f"verifiers:{name}", **fields)
    train_set, _ = load(run, evaluation=False)
    return train_set, load_episodes(run, train_set, None, has_rewards=False)[None]


def said(text):
    return [{"role": "assistant", "content": text}]


def test_the_tasks_are_the_rows():
    rows, _ = opened("word_tasks")
    assert len(rows) == 16 and rows.column_names == ["prompt", "task", "answer"]
    assert rows[3]["task"] == 3 and len(rows[3]["answer"]) == 2
    assert rows[0]["prompt"] == [{"role": "user", "content": "Find the code."}]
    rows, _ = opened("plain_tasks", dataset_kwargs={"size": 3}, environment_kwargs={"first": 7})
    assert rows["answer"] == ["7", "8", "9"]
    assert rows[1]["prompt"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say 8."}]
    assert len(opened("plain_tasks")[0]) == 2048


def test_the_next_tasks_are_the_evaluation_set():
    run = RunArguments(environment="verifiers:plain_tasks", dataset_kwargs={"size": 3})
    _, evaluated = load(run, evaluation=True)
    assert evaluated["answer"] == ["3", "4", "5"] and evaluated["task"] == [3, 4, 5]


def test_the_rewards_of_a_task_score_the_completion():
    rows, kind = opened("plain_tasks", dataset_kwargs={"size": 2})
    episode = kind()
    episode.reset(**rows[1])
    # 0.5 × same + 1 turn + 10 for the system prompt
    assert episode._reward(said("1")) == 11.5
    assert episode._reward(said("0")) == 11.0
    call = {"type": "function", "function": {"name": "look", "arguments": {"at": 1}}}
    turns = [{"role": "assistant", "content": "", "tool_calls": [call, call]}]
    turns += [{"role": "tool", "name": "look", "content": "1"}] * 2 + said("1")
    assert episode._reward(turns) == 12.5


def test_scoring_that_hangs_or_fails_gives_no_reward():
    _, kind = opened("plain_tasks", dataset_kwargs={"size": 4}, tool_timeout=1.0)
    episode = kind()
    for task, words in ((2, "no answer after 1 seconds"), (3, "no grader")):
        episode.reset(prompt="", task=task)
        assert episode._reward(said("3")) is None and words in episode._failure
    episode.reset(prompt="", task=1)
    assert episode._reward(said("1")) == 11.5


def test_each_completion_has_tools_and_a_state_of_its_own():
    rows, kind = opened("word_tasks")
    one, other = kind(), kind()
    for episode in (one, other):
        episode.reset(**rows[3])
    word = rows[3]["answer"]
    assert one.ask() + one.ask() == word
    assert other.ask() == word[0]
    assert one._reward([]) == 0.25 and other._reward([]) == 0.125  # 0.125 per letter
    assert one.answer(code=word) == "true" and other.answer(code="x") == "false"
    assert one._reward([]) == 2.25 and other._reward([]) == 0.125
    with pytest.raises(Exception, match="valid string"):
        one.answer(code=3)
    one.reset(**rows[4])
    assert one._reward([]) == 0.0 and one.ask() == rows[4]["answer"][0]


def test_the_tools_are_described():
    _, kind = opened("word_tasks")
    described = get_json_schema(kind().answer)["function"]
    assert described["description"] == "Answer with the code."
    assert described["parameters"]["properties"]["code"]["type"] == "string"
    assert described["parameters"]["required"] == ["code"]


CASES = {
    "empty_tasks": ("has no taskset", "exports no Taskset subclass"),
    "nothing": ("is not installed", "prime env install OWNER/nothing"),
    "somebody/nothing": ("is not installed", "prime env install somebody/nothing"),
    "loop_tasks": ("cannot be joined to TRL's loop", "Loop runs its episodes with a loop of its own"),
    "program_tasks": ("cannot be joined", "a harness of its own"),
    "prepared_tasks": ("cannot be joined", "Prepared.setup works in a sandbox"),
    "executed_tasks": ("cannot be joined", "task 0 scores in a sandbox (passed)"),
    "stopped_tasks": ("cannot be joined", "task 0 ends or changes the turns itself"),
    "open_tasks": ("cannot be joined", "task 0 has no prompt"),
    "image_tasks": ("cannot be joined", "task 0 needs a container"),
    "unscored_tasks": ("cannot be joined", "task 0 has no reward"),
    "broken_tasks": ("reading task 1 raised OSError no disk",),
    "shared_tasks": ("cannot be joined", "share the state of its tools"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_joined_is_refused_in_one_line(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "train", lambda *args: pytest.fail("a model was about to be loaded"))
    with pytest.raises(SystemExit):
        train.main([str(RECIPE), "--environment", f"verifiers:{name}", "--dataset_kwargs", "{}"])
    printed = capsys.readouterr().err.strip()
    assert printed.startswith(f"gbpo: error: environment='verifiers:{name}'") and "\n" not in printed, printed
    assert all(word in printed for word in CASES[name]), printed


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r'environment_kwargs=\{"frist": 1\} do not fit .verifiers:plain_tasks.'):
        opened("plain_tasks", environment_kwargs={"frist": 1})
    with pytest.raises(ValueError, match=r"verifiers:plain_tasks has rows of its own, and dataset_name='arithmetic'"):
        opened("plain_tasks", dataset_name="arithmetic")


def flags_of(name, model, folder):
    flags = ["--model_name_or_path", model, "--environment", f"verifiers:{name}", "--dataset_kwargs", "{}"]
    return [*SHORT, *flags, "--output_dir", str(folder)]


@pytest.mark.parametrize("name", ["word_tasks", "letter_tasks"])
def test_a_run_and_its_resumption(name, modules, acting_model, tmp_path):
    """A run that ends after step 2 and is resumed equals the run of 4 steps."""
    command = ["env", f"PYTHONPATH={modules}", sys.executable]
    for folder, steps in (("whole", ["4"]), ("again", ["2", "4"])):
        for count in steps:
            flags = [*flags_of(name, acting_model, tmp_path / folder), "--max_steps", count]
            flags += ["--save_strategy", "steps", "--save_steps", "2", "--resume_from_checkpoint", "auto"]
            processes.run(*command, ROOT / "launch" / "gbpo.py", RECIPE, *flags)
    rows = [json.loads(line) for line in (tmp_path / "again" / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "rewards/Verifiers/mean" in row]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(row["rewards/Verifiers/broken"] == 0.0 for row in rows)
    assert max(row["rewards/Verifiers/mean"] for row in rows) > 0
    if name == "word_tasks":
        assert all(row["tools/call_frequency"] > 1 for row in rows)
    weights = [(tmp_path / folder / "model" / "model.safetensors").read_bytes() for folder in ("whole", "again")]
    assert weights[0] == weights[1]


def test_the_dry_run_says_what_it_is(acting_model, tmp_path, capsys):
    train.main([str(RECIPE), *flags_of("word_tasks", acting_model, tmp_path / "run"), "--dry_run", "true"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "verifiers:word_tasks, tasks with tools, rewards asked, right; tools answer, ask;" in printed
    train.main([str(RECIPE), *flags_of("letter_tasks", acting_model, tmp_path / "run"), "--dry_run", "true"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "verifiers:letter_tasks, tasks of one turn, rewards letters; no tools;" in printed
