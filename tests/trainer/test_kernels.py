"""Attention kernels and activation checkpointing do not change two optimiser steps.

torch.compile takes minutes; tests/engines/test_compile.py covers it.
"""

import warnings

import pytest
import torch
from peft import LoraConfig

from gbpo import GBPOConfig
from rollouts import random_rollout, token_sum

CHECKPOINTING = {
    "default": {"activation_checkpointing": True},
    "reentrant": {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}},
    "not reentrant": {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": False}},
    "by TRL's name": {"activation_checkpointing": None, "gradient_checkpointing": True},
}


@pytest.fixture
def two_steps(make_trainer):
    """`two_steps(**config)` → the trainer after two steps on one batch, their losses, and the flat update.

    The ratio is 1 in the first step and differs from 1 in the second. The loss has a KL term and an entropy bonus.
    """

    def run(peft_config=None, **config):
        trainer = make_trainer(
            reward_funcs=token_sum,
            trainer={"rollout_func": random_rollout(3, 4, 5, 6, 7), "peft_config": peft_config},
            optim="sgd",
            learning_rate=0.3,
            lr_scheduler_type="constant",
            beta=0.1,
            entropy_coef=0.01,
            max_steps=2,
            **config,
        )
        before = [p.detach().clone() for p in trainer.model.parameters()]
        trainer.train()
        update = torch.cat([(p - b).flatten() for p, b in zip(trainer.model.parameters(), before, strict=True)])
        return trainer, [row["loss"] for row in trainer.state.log_history if "loss" in row], update.detach()

    return run


def assert_same(actual, expected):
    """Both losses agree to 1e-6 and the updates to a relative 1e-5 (float32)."""
    assert actual[1] == pytest.approx(expected[1], abs=1e-6) and len(actual[1]) == 2
    assert expected[2].norm() > 1e-3
    assert (actual[2] - expected[2]).norm() / expected[2].norm() < 1e-5


def test_attention(two_steps):
    runs = {
        name: two_steps(model_init_kwargs={"dtype": "float32", "attn_implementation": name})
        for name in ("eager", "sdpa")
    }
    for name, (trainer, *_) in runs.items():
        assert trainer.model.config._attn_implementation == trainer.ref_model.config._attn_implementation == name
    assert_same(runs["eager"], runs["sdpa"])


@pytest.mark.sweep
@pytest.mark.parametrize("lora", [False, True], ids=["full", "LoRA"])
def test_checkpointing(two_steps, lora):
    """With LoRA the base is frozen: reentrant checkpointing trains nothing unless its inputs require gradients."""
    peft_config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM") if lora else None
    expected = two_steps(peft_config)
    assert not expected[0].model.is_gradient_checkpointing
    for name, config in CHECKPOINTING.items():
        actual = two_steps(peft_config, **config)
        assert actual[0].model.is_gradient_checkpointing, name
        assert_same(actual, expected)


def test_the_defaults_checkpoint_without_a_warning(make_trainer):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        trainer = make_trainer(activation_checkpointing=None, max_steps=1)
        trainer.train()
    assert trainer.model.is_activation_checkpointing
    assert not [str(one.message) for one in seen if "checkpointing" in str(one.message)]


def test_the_old_name_turns_checkpointing_off_with_the_warning_of_transformers(tmp_path):
    with pytest.warns(FutureWarning, match="Use `activation_checkpointing` instead"):
        config = GBPOConfig(str(tmp_path), gradient_checkpointing=False, use_cpu=True, bf16=False)
    assert not config.activation_checkpointing
