"""The record of a generation: every completion with its own rewards, advantage, target, log-probs and ratios."""

import copy

import pytest
import torch
from datasets import Dataset
from trl.trainer.utils import nanstd

from gbpo.core import group_target_ratio
from gbpo.trainer import rollout_log
from gbpo.trainer.base import BaseTrainer
from gbpo.trainer.config import BaseConfig
from rollouts import character_sum, ended, rollout_of


def reward(completions, log_extra=None, **kwargs):
    """Depends on the text; None for some. Logs the text as its status."""
    log_extra("status", list(completions))
    return [None if value == 4 else value for value in character_sum(completions)]


@pytest.fixture
def record(make_trainer, tmp_path):
    """`record(algorithm, **config)`: a trained trainer, and the records of its generations."""

    def run(algorithm="gbpo", resume=None, **config):
        defaults = {"reward_funcs": reward, "max_steps": 4, "steps_per_generation": 2, "seed": 3}
        if algorithm == "grpo":
            defaults |= {"base": BaseTrainer, "config_class": BaseConfig}
        rows = {"prompt": [f"{i}+1=" for i in range(8)], "number": list(range(8))}
        trainer = make_trainer(algorithm, dataset=Dataset.from_dict(rows), **defaults | config)
        found = []
        trainer.record_rollouts(lambda record: found.append(copy.deepcopy(record)))
        trainer.train(resume_from_checkpoint=resume)
        return trainer, found

    return run


def completions_of(record):
    return [one for group in record["groups"] for one in group["completions"]]


def log_probs(model, prompt, ids):
    """Log-probs of a completion, from one plain forward pass."""
    tokens = torch.tensor([prompt + ids])
    with torch.no_grad():
        logits = model(tokens).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return logits.gather(-1, torch.tensor(ids)[:, None]).squeeze(-1).tolist()


@pytest.mark.parametrize("algorithm", ["gbpo", "grpo"])
def test_each_completion_has_its_own_numbers(record, algorithm):
    trainer, (one,) = record(algorithm)  # 2 micro-batches × 2 iterations
    start = make_model(trainer)
    assert one["steps"] == [1, 4] and one["generation"] == 0
    assert [len(group["completions"]) for group in one["groups"]] == [4] * 4
    ratios = []
    for group in one["groups"]:
        assert group["row"]["prompt"] == f"{group['row']['number']}+1="
        prompt = trainer.processing_class(group["row"]["prompt"])["input_ids"]
        values = torch.tensor([torch.nan if c["reward"] is None else c["reward"] for c in group["completions"]])
        advantages = ((values - values.nanmean()) / (nanstd(values) + 1e-4)).nan_to_num(nan=0.0)
        scored = advantages.masked_fill(values.isnan(), torch.nan)
        targets = group_target_ratio(scored, 4, epsilon_low=0.2, epsilon_high=0.2, scale_rewards="none").tolist()
        for i, (completion, advantage) in enumerate(zip(group["completions"], advantages.tolist(), strict=True)):
            text = trainer.processing_class.decode(completion["ids"], skip_special_tokens=True)
            assert completion["completion"] == completion["statuses"]["status"] == text
            (expected,) = reward([text], log_extra=lambda *_: None)
            assert completion["reward"] == completion["rewards"]["reward"] == expected
            assert completion["advantage"] == pytest.approx(advantage, abs=1e-5)
            assert completion["sampled_after"] == completion["round"] == 0
            whole = trainer.processing_class.decode(completion["ids"])
            assert "".join(one["vocabulary"][token] for token in completion["ids"]) == whole
            if completion["trained"]:
                assert completion["logps"] == pytest.approx(log_probs(start, prompt, completion["ids"]), abs=2e-5)
                ratios += completion["ratios"]
            else:
                assert algorithm == "gbpo" and completion["advantage"] == 0  # a row without signal is not run
            if algorithm == "gbpo":
                assert completion["target_ratio"] == pytest.approx(targets[i], abs=1e-6)
            else:
                assert "target_ratio" not in completion
    assert max(abs(ratio - 1) for ratio in ratios) > 0.01, "the ratios must be those of the second iteration"


def make_model(trainer):
    """The model with the weights before the training."""
    return type(trainer.model).from_pretrained(trainer.model.name_or_path, dtype=torch.float32).eval()


@pytest.mark.slow
def test_a_resumed_run_records_the_same(record, tmp_path):
    """Also when it resumes within a generation; and the generations before the checkpoint are not recorded again."""
    options = {"max_steps": 8, "save_strategy": "steps", "save_steps": 1}
    _, whole = record(output_dir=str(tmp_path / "whole"), **options)
    assert [one["steps"] for one in whole] == [[1, 4], [5, 8]]
    for step, generations in {2: whole, 4: whole[1:], 5: whole[1:]}.items():
        folder = str(tmp_path / f"again-{step}")
        _, again = record(resume=str(tmp_path / "whole" / f"checkpoint-{step}"), output_dir=folder, **options)
        assert again == generations, step


def test_the_last_generation_may_be_unfinished(record):
    _, records = record(max_steps=5)
    assert [one["steps"] for one in records] == [[1, 4], [5, 5]]
    trained = {one["trained"] for one in completions_of(records[1])}
    assert trained == {True, False}  # only one of two micro-batches was run


def test_resampled_groups_say_their_round(record, random_model):
    def prompts_differ(prompts, completions, **kwargs):
        return [float(i % 4 == 1) if int(prompt[0]) in {0, 2, 4, 6} else 1.0 for i, prompt in enumerate(prompts)]

    def rollout(prompts, trainer):
        trainer.calls = getattr(trainer, "calls", 0) + 1
        return rollout_of(
            trainer, prompts, ended(trainer, ["1" * (trainer.calls + i % 3) for i in range(len(prompts))])
        )

    _, (one,) = record(
        reward_funcs=prompts_differ,
        resample_zero_signal_groups=True,
        per_device_train_batch_size=32,
        steps_per_generation=1,
        num_iterations=1,
        max_steps=1,
        max_completion_length=16,
        trainer={"rollout_func": rollout},
    )
    assert len(one["groups"]) == 8
    assert one["replaced_groups"] == one["drawn_groups"] - 8 >= 4  # prompts 1, 3, 5 and 7 have no signal
    for group in one["groups"]:
        assert int(group["row"]["prompt"][0]) in {0, 2, 4, 6}
        for i, completion in enumerate(group["completions"]):
            assert completion["completion"].strip("1") == ""
            assert completion["reward"] == float(i == 1)
            # round n samples texts of n + 1 to n + 3 characters
            assert completion["round"] + 1 <= len(completion["completion"]) <= completion["round"] + 3
    assert {c["round"] > 0 for c in completions_of(one)} == {True, False}


def test_completions_sampled_ahead_say_their_version(record):
    _, records = record(generate_ahead=1, steps_per_generation=1, num_iterations=1, max_steps=3)
    assert [one["steps"] for one in records] == [[1, 1], [2, 2], [3, 3]]
    assert [{c["sampled_after"] for c in completions_of(one)} for one in records] == [{0}, {0}, {1}]


def test_the_ratios_of_a_large_generation_are_bounded(record, monkeypatch):
    monkeypatch.setattr(rollout_log, "MAX_TOKENS", 20)
    _, (one,) = record("grpo")
    completions = completions_of(one)
    with_ratios = [c for c in completions if "ratios" in c]
    assert 0 < sum(len(c["ids"]) for c in with_ratios) <= 20
    assert one["without_ratios"] == len(completions) - len(with_ratios)
    assert all(c["trained"] for c in completions)


def test_columns_that_json_cannot_hold_are_left_out():
    row = {"prompt": "1", "solution": "2", "tests": [{"in": 1, "out": None}], "image": object(), "keys": {1: 2}}
    assert rollout_log._storable(row) == {"solution": "2", "tests": [{"in": 1, "out": None}]}
