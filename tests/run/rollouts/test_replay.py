"""Stored completions graded again: as in training if the rewards are the same, and without running the model."""

import functools
import json
import re
import sys

import pytest
from transformers import Qwen2ForCausalLM

from gbpo.run import train
from gbpo.run.rollouts import files
from gbpo.run.rollouts.command import main
from gbpo.run.rollouts.replay import graded_again

RECIPE = """
dataset_name: train.jsonl
reward_funcs: [own_grades.grade, majority_vote]
reward_kwargs: {majority_vote: {votes: 8, boxed: false}}
reward_weights: [1.0, 0.25]
num_generations: 4
per_device_train_batch_size: 8
steps_per_generation: 2
num_iterations: 1
max_completion_length: 4
max_steps: 4
learning_rate: 1.0e-2
save_strategy: "no"
log_completions: true
use_cpu: true
bf16: false
"""
OWN = """
def grade(completions, completion_ids, solution, trainer_state, log_extra, **kwargs):
    log_extra("length", [len(ids) for ids in completion_ids])
    found = [sum(map(ord, c[0]["content"])) % 5 + int(s) for c, s in zip(completions, solution)]
    return [None if n % 3 == 0 else n + trainer_state.global_step for n in found]
"""


@pytest.fixture(scope="module", params=["gbpo", "grpo, normalised over the batch"])
def trained(request, random_model, tmp_path_factory):
    """The folder of a run with a reward of its own, which depends on ids, columns and steps, and with votes."""
    folder = tmp_path_factory.mktemp("trained")
    rows = [{"prompt": f"{n}+1=", "solution": str(n + 1)} for n in range(8)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "own_grades.py").write_text(OWN)
    recipe = RECIPE + f"model_name_or_path: {random_model}\n"
    if request.param != "gbpo":
        recipe += "algorithm: grpo\nscale_rewards: batch\n"
    (folder / "mine.yaml").write_text(recipe)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        train.main(["mine.yaml", "--output_dir", "runs/mine"])
        yield folder / "runs" / "mine"
        sys.modules.pop("own_grades")


def completions_of(record):
    return [one for group in record["groups"] for one in group["completions"]]


def test_the_same_rewards_give_the_same_numbers(trained, monkeypatch, capsys):
    monkeypatch.setattr(Qwen2ForCausalLM, "forward", lambda *_, **__: pytest.fail("the model was run"))
    for step in (1, 3):
        (stored,) = files.records_of_step(trained, step)
        assert stored["steps"] == [step, step + 1]
        new = graded_again(trained, stored)
        pairs = list(zip(completions_of(stored), completions_of(new), strict=True))
        assert len({old["advantage"] for old, _ in pairs}) > 4
        assert any(old["rewards"]["grade"] is None for old, _ in pairs)
        for old, now in pairs:
            assert now["rewards"] == pytest.approx(old["rewards"], abs=1e-6)
            assert now["advantage"] == pytest.approx(old["advantage"], abs=1e-6)
            assert now.get("target_ratio") == pytest.approx(old.get("target_ratio"), abs=1e-6)
            assert now["statuses"] == old["statuses"]
    main([str(trained), "--replay", "--step", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "generation 0, steps 1 to 2"
    assert lines[1].split() == ["group", "grade", "majority_vote", "reward", "advantage", "completion"]
    assert lines[-1] == "16 completions: no differences" and len(lines) == 19


def test_a_changed_reward_shows_its_differences(trained, monkeypatch, capsys):
    (stored,) = files.records_of_step(trained, 3)
    first = next(i for i, one in enumerate(completions_of(stored)) if one["rewards"]["grade"] is not None)
    grade = sys.modules["own_grades"].grade

    @functools.wraps(grade)
    def another(completions, **kwargs):
        return [value if i != first else value + 2 for i, value in enumerate(grade(completions, **kwargs))]

    monkeypatch.setattr(sys.modules["own_grades"], "grade", another)
    main([str(trained), "--replay", "--step", "3"])
    *rows, last = capsys.readouterr().out.splitlines()[2:]
    value = completions_of(stored)[first]["rewards"]["grade"]
    assert f"{value:.4g} -> {value + 2:.4g}" in rows[first]
    assert last.startswith("16 completions: differences: 1 in grade, 1 in reward, ")
    assert re.search(r"\d+ in advantage$", last)


def test_what_cannot_be_computed_again_is_refused(trained):
    (stored,) = files.records_of_step(trained, 1)
    for group in stored["groups"]:
        del group["row"]["solution"]
    with pytest.raises(ValueError, match="reads the column 'solution'"):
        graded_again(trained, stored)
    (stored,) = files.records_of_step(trained, 1)
    stored["drawn_groups"] += 2
    settings = json.loads((trained / "config.json").read_text())
    if settings["training"]["scale_rewards"] == "batch":
        with pytest.raises(ValueError, match="scale_rewards=batch normalises over all 6 groups that were drawn"):
            graded_again(trained, stored)
