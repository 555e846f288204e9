"""The options of GRPO's loss: every one is supported or refused, and a supported one changes the training."""

import inspect
import re
from dataclasses import fields

import pytest
import torch
from trl import GRPOConfig, GRPOTrainer

from gbpo.trainer.config import HONOURED, REFUSED
from rollouts import character_sum, count_digits

ENTROPY = {"use_adaptive_entropy": True, "entropy_target": 9.0, "entropy_coef_delta": 0.5}
ENGINE = {"sampling_dtype": "bfloat16", "vllm_importance_sampling_mode": "token_truncate"}  # corrected as vLLM's
SYNCED = {"beta": 3.0, "sync_ref_model": True, "ref_model_sync_steps": 1}
# option: the settings to compare, without and with the option
SETTINGS = {
    "loss_type": ({}, {"loss_type": "grpo"}),
    "importance_sampling_level": ({}, {"importance_sampling_level": "sequence"}),
    "epsilon": ({}, {"epsilon": 0.01}),
    "epsilon_high": ({}, {"epsilon_high": 0.01}),
    "num_iterations": ({}, {"num_iterations": 1}),
    "steps_per_generation": ({}, {"steps_per_generation": 2}),
    "max_completion_length": ({"loss_type": "dr_grpo"}, {"loss_type": "dr_grpo", "max_completion_length": 7}),
    "temperature": ({}, {"temperature": 1.5}),
    "scale_rewards": ({}, {"scale_rewards": "batch"}),
    "multi_objective_aggregation": ({}, {"multi_objective_aggregation": "normalize_then_sum"}),
    "reward_weights": ({}, {"reward_weights": [1.0, -1.0]}),
    "beta": ({}, {"beta": 3.0}),
    "use_bias_correction_kl": ({"beta": 3.0}, {"beta": 3.0, "use_bias_correction_kl": False}),
    "sync_ref_model": ({"beta": 3.0}, SYNCED),
    "ref_model_mixup_alpha": (SYNCED, SYNCED | {"ref_model_mixup_alpha": 0.1}),
    "ref_model_sync_steps": (SYNCED, SYNCED | {"ref_model_sync_steps": 2}),
    "entropy_coef": ({}, {"entropy_coef": 1.0}),
    "use_adaptive_entropy": ({}, ENTROPY),
    "entropy_coef_max": (ENTROPY, ENTROPY | {"entropy_coef_max": 0.6}),
    "entropy_coef_delta": (ENTROPY, ENTROPY | {"entropy_coef_delta": 0.3}),
    "entropy_target": (ENTROPY, ENTROPY | {"entropy_target": 0.1}),
    "top_entropy_quantile": ({}, {"top_entropy_quantile": 0.5}),
    "off_policy_mask_threshold": ({}, {"off_policy_mask_threshold": 1e-9}),
    "mask_truncated_completions": ({}, {"mask_truncated_completions": True}),
    "vllm_importance_sampling_correction": (ENGINE, ENGINE | {"vllm_importance_sampling_correction": False}),
    "vllm_importance_sampling_mode": (ENGINE, ENGINE | {"vllm_importance_sampling_mode": "sequence_truncate"}),
    "vllm_importance_sampling_clip_min": (ENGINE, ENGINE | {"vllm_importance_sampling_clip_min": 1.001}),
    "vllm_importance_sampling_clip_max": (ENGINE, ENGINE | {"vllm_importance_sampling_clip_max": 0.999}),
    "vllm_importance_sampling_cap": (ENGINE, ENGINE | {"vllm_importance_sampling_cap": 0.999}),
}
ELSEWHERE = {"entropy_coef_min", "router_aux_loss_coef"}  # the test below, and test_gbpo.py


def test_every_option_that_trls_loss_reads_is_supported_or_refused():
    source = inspect.getsource(GRPOTrainer._compute_loss)
    own = {one.name for one in fields(GRPOConfig)}
    read = {name for name in re.findall(r"self\.(?:args\.)?(\w+)", source) if name in own} - {"use_vllm"}
    assert {"beta", "delta", "loss_type", "top_entropy_quantile"} < read
    assert read - set(REFUSED).union(*HONOURED) == set()


def test_every_supported_option_is_tried():
    assert set().union(*HONOURED) == set(SETTINGS) | ELSEWHERE


@pytest.fixture(scope="module")
def trained():
    """The weights by their settings, because several options have the same settings to compare with."""
    return {}


@pytest.mark.parametrize("option", SETTINGS)
def test_a_supported_option_changes_the_weights(make_trainer, trained, option):
    def weights(config):
        if repr(config) not in trained:
            trainer = make_trainer(reward_funcs=[character_sum, count_digits], **{"max_steps": 3, **config})
            trainer.train()
            trained[repr(config)] = torch.cat([one.detach().flatten() for one in trainer.model.parameters()])
        return trained[repr(config)]

    without, with_option = SETTINGS[option]
    assert not torch.equal(weights(without), weights(with_option))


def test_the_entropy_coefficient_has_a_minimum(make_trainer):
    """The entropy is above the target, so the coefficient 0.5 would fall by 0.4 to 0.1."""
    options = {"entropy_coef": 0.5, "entropy_coef_delta": 0.4, "entropy_coef_min": 0.3, "entropy_target": 0.01}
    trainer = make_trainer(use_adaptive_entropy=True, max_steps=1, reward_funcs=character_sum, **options)
    trainer.train()
    assert trainer.entropy_coef == 0.3
