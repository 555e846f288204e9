"""Whole optimiser steps: however the batch is split, with ungraded rows, with evaluation, resuming and PEFT."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM

import processes
from gbpo import GBPOConfig, GBPOTrainer
from gbpo.trainer.config import GBPOHazard
from rollouts import count_digits, in_turn

ONE_STEP = Path(__file__).with_name("one_step.py")


def one_step(model, folder, *, ranks=1, **config):
    """The result of one_step.py."""
    output = folder / "step.pt"
    processes.run_script(ONE_STEP, model, output, ranks, json.dumps(config), ranks=ranks)
    return torch.load(output)


def distance(step, reference):
    """Relative distance of two updates."""
    return ((step["update"] - reference["update"]).norm() / reference["update"].norm()).item()


# 16 completions in two groups of 8
SPLITS = {
    "1 process, 16 × 1": {"per_device_train_batch_size": 16},
    "1 process, 1 × 16": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 16},
    "2 processes, 8 × 1": {"ranks": 2, "per_device_train_batch_size": 8},
    "2 processes, 1 × 8": {"ranks": 2, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
}
CASES = {
    "dapo, median": {"loss_type": "dapo"},
    "grpo, exact, sequence": {
        "loss_type": "grpo",
        "target_baseline": "exact",
        "importance_sampling_level": "sequence",
    },
}


@pytest.mark.parametrize("case", CASES)
def test_same_step_however_the_batch_is_split(random_model, tmp_path, case):
    steps = {}
    for i, (split, config) in enumerate(SPLITS.items()):
        (tmp_path / str(i)).mkdir()
        steps[split] = one_step(random_model, tmp_path / str(i), num_generations=8, **config, **CASES[case])
    reference = steps.pop("1 process, 16 × 1")
    assert reference["update"].norm() > 1e-3
    for split, step in steps.items():
        assert distance(step, reference) < 2e-6, split
        for name, value in reference["metrics"].items():
            if name.startswith(("gbpo/target", "gbpo/tied", "gbpo/sign", "reward")):
                assert step["metrics"][name] == pytest.approx(value, rel=1e-5), (split, name)


def test_two_processes_take_as_many_steps_per_generation_as_one(random_model, tmp_path):
    """One epoch is one generation: 2 prompts × 8 completions × 2 iterations / 8 completions per step = 4 steps."""
    size = {"generation_batch_size": 16, "optimizer_batch_size": 8, "per_device_train_batch_size": 4}
    config = {**size, "num_generations": 8, "num_iterations": 2, "max_steps": -1, "num_train_epochs": 1}
    for ranks in (1, 2):
        (tmp_path / str(ranks)).mkdir()
        assert one_step(random_model, tmp_path / str(ranks), ranks=ranks, **config)["steps"] == 4


def test_a_rank_without_signal_runs_idle_passes(random_model, tmp_path):
    """The group of the second rank has no signal: that rank runs idle passes, as many as the first rank runs.

    Idle passes count in no metric, so all metrics equal those of one process.
    """
    config = {"num_generations": 8, "silent_prompts": [False, True], "per_device_train_batch_size": 2}
    steps = []
    for ranks, switches in ((1, {"exact_speedups": ["trim_padding", "share_prompts"]}), (1, {}), (2, {})):
        folder = tmp_path / str(len(steps))
        folder.mkdir()
        config["gradient_accumulation_steps"] = 8 // ranks
        steps.append(one_step(random_model, folder, ranks=ranks, **config, **switches))
    every_row, alone, with_idle_rank = steps
    assert with_idle_rank["metrics"]["gbpo/rows_run"] == alone["metrics"]["gbpo/rows_run"] < 0.5
    assert distance(with_idle_rank, every_row) < 2e-6
    pooled = {name for name in alone["metrics"] if name.startswith(("gbpo/", "clip_ratio/", "entropy"))}
    assert {"entropy", "gbpo/ratio_error", "clip_ratio/region_mean"} <= pooled
    for name in pooled - {"gbpo/pass_shapes"}:  # this one counts the shapes of one process
        assert with_idle_rank["metrics"][name] == pytest.approx(alone["metrics"][name], rel=1e-5, abs=1e-6), name


def test_two_processes_resample_the_same_groups(random_model, tmp_path):
    """The second group has no signal: both ranks replace it by the same resampled group."""
    config = {"num_generations": 8, "silent_prompts": [False, True], "resample_zero_signal_groups": True}
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    whole = one_step(random_model, tmp_path / "one", per_device_train_batch_size=16, **config)
    split = one_step(random_model, tmp_path / "two", ranks=2, per_device_train_batch_size=8, **config)
    assert whole["metrics"]["gbpo/groups_without_signal"] == 0
    assert whole["metrics"]["gbpo/resampled_groups"] == 2
    assert distance(split, whole) < 2e-6


def test_a_group_over_two_ranks_is_one_group(random_model, tmp_path):
    """One prompt has 16 completions, 8 on each rank. Medians of the two halves would give another step."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    whole = one_step(random_model, tmp_path / "one", num_generations=16, per_device_train_batch_size=16)
    split = one_step(random_model, tmp_path / "two", num_generations=16, per_device_train_batch_size=8, ranks=2)
    assert distance(split, whole) < 2e-6


@pytest.mark.parametrize("num_generations", [8, 16])
def test_two_processes_that_sample_ahead_are_one(check_ahead, num_generations):
    """A group of 16 completions spans both processes."""
    check_ahead("ddp", num_generations)


def scored(make_trainer, values, reward_funcs=None, **config):
    """The trainer and its scored batch of 8 completions with these rewards, in groups of 4."""
    trainer = make_trainer(reward_funcs=reward_funcs or in_turn(values), **config)
    trainer.model.train()
    rows = [{"prompt": "1+1="}] * 4 + [{"prompt": "2+2="}] * 4
    return trainer, trainer._generate_and_score_completions(rows)


@pytest.mark.parametrize("baseline", ["median", "exact", "mean"])
def test_ungraded_rows_move_neither_policy_nor_target(make_trainer, baseline):
    """The first group has the rewards 1, 0, 0 and None. TRL gives None the advantage 0, which must not count."""
    trainer, batch = scored(make_trainer, [1.0, 0.0, 0.0, None, 2.0, 1.0, None, 0.5], target_baseline=baseline)
    target = batch["target_ratio"]
    expected = {
        "median": [1.2, 1.0, 1.0, 1.0, 1.2, 1.0, 1.0, 0.8],  # medians 0 and 1
        "exact": [1.2, 0.9, 0.9, 1.0, 1.2, 1.0, 1.0, 0.8],  # 1.5 lifts for the three graded rows: 1 + 1/4 + 1/4
        "mean": [1.2, 0.8, 0.8, 1.0, 1.2, 0.8, 1.0, 0.8],  # means 1/3 and 7/6
    }[baseline]
    assert target.tolist() == pytest.approx(expected, abs=1e-5)
    assert batch["advantages"][3] == batch["advantages"][6] == batch["centred_advantages"][3] == 0
    assert trainer._metrics["train"]["gbpo/target_ratio_mean"][0] == pytest.approx((sum(expected) - 2) / 6, rel=1e-5)


def test_a_batch_without_any_grade_has_a_zero_gradient(make_trainer, gradient):
    trainer, batch = scored(make_trainer, [None])
    loss, grads = gradient(trainer, batch)
    assert loss == 0 and grads.abs().max() == 0


@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_target_follows_the_aggregated_reward(make_trainer, aggregation, scale):
    """Two rewards with the weights 2 and 1, the second partly ungraded: the target follows the order of their sum."""
    first, second = [10.0, 0.0, 0.0, 1.0], [0.0, 1.0, None, 0.0]
    _, batch = scored(
        make_trainer,
        None,
        reward_funcs=[in_turn(first), in_turn(second)],
        reward_weights=[2.0, 1.0],
        multi_objective_aggregation=aggregation,
        scale_rewards=scale,
        target_temperature=0.0,
    )
    if aggregation == "sum_then_normalize":  # 20, 1, 0, 2: median 1.5
        assert batch["target_ratio"].tolist() == pytest.approx([1.2, 0.8, 0.8, 1.2] * 2)
    else:  # 2·(1.49, -0.57, -0.57, -0.36) + (-0.58, 1.15, None, -0.58) = 2.40, 0.02, -1.13, -1.30
        assert batch["target_ratio"].tolist() == pytest.approx([1.2, 1.2, 0.8, 0.8] * 2)


@pytest.mark.sweep
@pytest.mark.parametrize("baseline", ["median", "exact"])
def test_training_raises_the_reward(make_trainer, baseline):
    trainer = make_trainer(
        reward_funcs=count_digits,
        dataset=Dataset.from_dict({"prompt": ["1+1="] * 64}),
        target_baseline=baseline,
        per_device_train_batch_size=32,
        num_generations=8,
        learning_rate=3e-3,
        max_steps=40,
    )
    trainer.train()
    rewards = [log["reward"] for log in trainer.state.log_history if "reward" in log]
    assert sum(rewards[-6:]) / 6 > sum(rewards[:6]) / 6 + 1.0  # a completion has 6 characters
    logged = trainer.state.log_history[4]  # a step that generated
    for name in (
        "target_ratio_mean",
        "target_ratio_std",
        "ratio_error",
        "outside_bounds",
        "overshoot",
        "sign_disagreement",
        "tied_fraction",
        "improvement_estimate",
    ):
        assert isinstance(logged[f"gbpo/{name}"], float)


def test_evaluation_uses_its_own_group_size(make_trainer):
    """Evaluation has groups of 8 and training of 4. In groups of 4, half of each four completions would rise."""
    trainer = make_trainer(
        reward_funcs=in_turn([0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.2, 0.1]),
        num_generations_eval=8,
        per_device_eval_batch_size=8,
        epsilon=0.2,
        target_temperature=0.0,
        trainer={"eval_dataset": Dataset.from_dict({"prompt": ["1+1=", "2+2=", "3+3=", "4+4="]})},
    )
    seen = []
    targets = trainer.targets
    trainer.targets = lambda *batch: seen.append(targets(*batch)) or seen[-1]
    metrics = trainer.evaluate()
    assert torch.allclose(seen[0][0], torch.tensor([1.2] * 4 + [0.8] * 4))
    assert metrics["eval_gbpo/tied_fraction"] == 0.0 and "eval_reward" in metrics


def test_save_resume_and_model_card(make_trainer, tmp_path):
    """A run of 4 steps and one that is resumed after step 2 end with the same weights."""
    config = {
        "reward_funcs": count_digits,
        "max_steps": 4,
        "save_strategy": "steps",
        "save_steps": 2,
        "num_iterations": 1,
    }
    whole = make_trainer(**config)
    whole.train()
    folder = Path(whole.args.output_dir)
    card = (folder / "README.md").read_text()
    assert "2604.18578" in card and "gbpo" in card and "GBPO" in card
    whole.model_card = lambda: "the card of the run"
    whole.create_model_card(model_name="other")
    assert (folder / "README.md").read_text() == "the card of the run"
    assert (folder / "checkpoint-2" / "model.safetensors").is_file()
    resumed = make_trainer(**config)
    resumed.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    assert resumed.state.global_step == 4
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_lora_trains_only_the_adapter_and_the_base_is_the_reference(make_trainer, random_model):
    trainer = make_trainer(
        reward_funcs=count_digits,
        max_steps=3,
        beta=0.1,
        trainer={"peft_config": LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")},
    )
    trainer.train()
    assert trainer.state.log_history[0]["kl"] is not None
    trainer.save_model()
    folder = Path(trainer.args.output_dir)
    assert (folder / "adapter_model.safetensors").is_file() and not (folder / "model.safetensors").exists()
    base = AutoModelForCausalLM.from_pretrained(random_model)
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(random_model), folder)
    ids = torch.tensor([[6, 7, 8]])
    assert not torch.allclose(base(ids).logits, adapted(ids).logits)
    with adapted.disable_adapter():
        torch.testing.assert_close(base(ids).logits, adapted(ids).logits)


def test_one_update_per_generation_gives_a_warning(make_trainer):
    with pytest.warns(GBPOHazard, match="set num_iterations above 1, or steps_per_generation above"):
        make_trainer(num_iterations=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", GBPOHazard)
        make_trainer(num_iterations=2)
        make_trainer(num_iterations=1, steps_per_generation=2)


def test_a_grpo_config_is_refused(random_model, tmp_path):
    from trl import GRPOConfig

    with pytest.raises(TypeError, match="GBPOConfig"):
        GBPOTrainer(random_model, count_digits, GRPOConfig(str(tmp_path), use_cpu=True, bf16=False))


def test_default_arguments_name_the_method(random_model, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    made = []

    def config(output_dir):
        made.append(GBPOConfig(output_dir, use_cpu=True, bf16=False))
        return made[0]

    # The default configuration needs a GPU.
    monkeypatch.setattr(
        "gbpo.trainer.gbpo.GBPOConfig", type("Config", (GBPOConfig,), {"__new__": lambda cls, d: config(d)})
    )
    GBPOTrainer(random_model, count_digits, train_dataset=Dataset.from_dict({"prompt": ["1+1="]}))
    assert made[0].output_dir.endswith("-GBPO")
