"""GBPOConfig: its defaults, and the options of GRPO that it refuses because the loss would ignore them."""

import pytest

from gbpo import GBPOConfig
from gbpo.trainer.config import BaseConfig

CPU = {"use_cpu": True, "bf16": False}


def config(**fields):
    return GBPOConfig("unused", **CPU, **fields)


def test_defaults_are_the_published_method():
    args = config()
    assert (args.target_baseline, args.target_temperature, args.overshoot_slope) == ("median", 1e-4, 1.0)
    assert (args.bound_exponent, args.max_log_ratio) == (0.0, 20.0)


REFUSED = {
    "target_baseline": "mode",
    "target_temperature": -1.0,
    "overshoot_slope": -0.1,
    "bound_exponent": 2.0,
    "max_log_ratio": 100.0,
    "epsilon": 1.5,
    "epsilon_high": 0.0,
    "num_generations": 1,
    "loss_type": "cispo",
    "delta": 4.0,
    "sapo_temperature_neg": 2.0,
    "sapo_temperature_pos": 2.0,
    "vespo_k_pos": 1.0,
    "vespo_lambda_pos": 1.0,
    "vespo_k_neg": 1.0,
    "vespo_lambda_neg": 1.0,
    "importance_sampling_level": "word",
    "scale_rewards": "world",
    "multi_objective_aggregation": "sum",
    "vllm_importance_sampling_mode": "clip",
    "top_entropy_quantile": 1.2,
}


@pytest.mark.parametrize("field", REFUSED)
def test_an_error_names_the_value_and_the_fix(field):
    with pytest.raises(ValueError) as refusal:
        config(**{field: REFUSED[field]})
    message = str(refusal.value)
    assert str(REFUSED[field]) in message
    assert "Write" in message or "Remove" in message
    assert "\n" not in message


@pytest.mark.parametrize("config_class", [BaseConfig, GBPOConfig])
@pytest.mark.parametrize("field", ["use_transformers_continuous_batching", "use_transformers_paged"])
@pytest.mark.parametrize("precision", [{}, {"bf16": True}, {"fp16": True, "bf16": False}], ids=str)
def test_generation_that_rounds_the_weights_in_place_is_refused(config_class, field, precision):
    """TRL's default is bf16."""
    name = next(iter(precision), "bf16")
    with pytest.raises(ValueError, match=f"{name}=True: .*{name} in place.* Write use_vllm: true.*{name}: false"):
        config_class("unused", use_cpu=True, **{field: True}, **precision)
    assert config_class("unused", **CPU, **{field: True}).use_transformers_continuous_batching


@pytest.mark.parametrize("loss_type", ["sapo", "luspo", "vespo"])
def test_other_losses_are_refused(loss_type):
    with pytest.raises(ValueError, match="dapo, grpo, bnpo, dr_grpo"):
        config(loss_type=loss_type)


@pytest.mark.parametrize(
    ("fields", "fix"),
    [
        ({"per_device_train_batch_size": 6, "num_generations": 4}, "num_generations=3"),
        ({"per_device_train_batch_size": 7, "num_generations": 4}, "multiple of 4"),
        ({"generation_batch_size": 20, "per_device_train_batch_size": 10, "num_generations": 8}, "num_generations=10"),
        # the least common multiple of 8 and 10
        (
            {"generation_batch_size": 20, "per_device_train_batch_size": 10, "num_generations": 8},
            "generation_batch_size, which must be a multiple of 40",
        ),
        (
            {"optimizer_batch_size": 20, "per_device_train_batch_size": 10, "num_generations": 8},
            "optimizer_batch_size, which must be a multiple of 40",
        ),
    ],
)
def test_a_batch_without_whole_groups_is_explained(fields, fix):
    with pytest.raises(ValueError, match="groups") as refusal:
        config(**fields)
    assert fix in str(refusal.value)
    assert str(fields["num_generations"]) in str(refusal.value)


def test_other_errors_of_trl_pass_through():
    with pytest.raises(ValueError, match="can not be both configured"):
        config(generation_batch_size=16, steps_per_generation=2)


@pytest.mark.parametrize("scale", [True, False, "True", "false"])
def test_trls_boolean_scale_is_accepted(scale):
    assert config(scale_rewards=scale).scale_rewards == ("group" if str(scale) == "True" else "none")


def test_updates_per_generation():
    assert config().updates_per_generation == 1
    assert config(num_iterations=3).updates_per_generation == 3
    assert config(gradient_accumulation_steps=4, steps_per_generation=8, num_iterations=2).updates_per_generation == 4


@pytest.mark.parametrize("kind", [GBPOConfig, BaseConfig])
@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_an_optimiser_step_has_the_same_completions_on_any_number_of_processes(kind, processes, launched):
    launched(processes)
    fields = {"generation_batch_size": 256, "optimizer_batch_size": 64, "per_device_train_batch_size": 8}
    args = kind("unused", **CPU, **fields, num_iterations=10)
    assert args.gradient_accumulation_steps * 8 * processes == 64
    assert args.updates_per_generation == 40  # 256 × 10 / 64
    assert args.hazards() == []


def test_without_a_generation_batch_a_generation_is_one_optimiser_step():
    args = config(optimizer_batch_size=32, per_device_train_batch_size=8)
    assert (args.gradient_accumulation_steps, args.generation_batch_size, args.updates_per_generation) == (4, 32, 1)


UNEVEN = {
    # 60 / 4 = 15 completions of each process; 5 is the largest divisor of 15 up to 8; 32 and 64 are multiples of 8 × 4
    "no multiple": (4, 60, {}, "Write per_device_train_batch_size=5, or optimizer_batch_size=32 or 64."),
    # and 3 the largest that also divides 96 / 4 = 24 completions of a generation
    "nor of the generation": (
        4,
        60,
        {"generation_batch_size": 96},
        "Write per_device_train_batch_size=3, or optimizer_batch_size=32 or 64.",
    ),
    "micro-batches too large": (8, 32, {}, "Write per_device_train_batch_size=4, or optimizer_batch_size=64."),
    "fewer completions than processes": (8, 4, {}, "Write optimizer_batch_size=64."),
    "none": (1, 0, {}, "Write optimizer_batch_size=8."),
}


@pytest.mark.parametrize("case", UNEVEN)
def test_an_optimiser_step_that_does_not_split_is_refused_with_values_that_work(case, launched):
    processes, size, fields, fix = UNEVEN[case]
    launched(processes)
    with pytest.raises(ValueError) as refusal:
        config(optimizer_batch_size=size, per_device_train_batch_size=8, num_generations=2, **fields)
    message = str(refusal.value)
    assert f"optimizer_batch_size={size}" in message and f"=8 × {processes} process(es)" in message
    assert message[message.index("Write") :] == fix


def test_the_size_of_an_optimiser_step_is_given_once():
    with pytest.raises(ValueError, match=r"optimizer_batch_size=8 and gradient_accumulation_steps=1 both set"):
        config(optimizer_batch_size=8, gradient_accumulation_steps=1)


def test_steps_that_depend_on_the_number_of_processes_are_a_hazard(launched):
    fields = {"per_device_train_batch_size": 8, "num_iterations": 10}
    launched(1)
    alone = config(generation_batch_size=512, gradient_accumulation_steps=8, **fields)
    assert alone.updates_per_generation == 80 and alone.hazards() == []  # 512 × 10 / (8 × 8)
    launched(8)
    args = config(generation_batch_size=512, gradient_accumulation_steps=8, **fields)
    assert args.hazards() == [
        "8 processes with gradient_accumulation_steps=8: 10 optimiser steps per generation, of 512 completions each. "
        "One process would take 80, of 64 each. Write optimizer_batch_size: 512 in place of "
        "gradient_accumulation_steps to keep 10, or optimizer_batch_size: 64 to take 80, on any number of processes."
    ]
    (line,) = config(generation_batch_size=512, gradient_accumulation_steps=2, **fields).hazards()
    assert "optimizer_batch_size: 16 and per_device_train_batch_size: 2 to take 320" in line
    # the whole batch grows with the processes, so the number of steps stays
    assert config(steps_per_generation=8, gradient_accumulation_steps=8, **fields).hazards() == []
