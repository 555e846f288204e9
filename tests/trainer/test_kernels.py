"""Options that compute the same loss by other kernels, or twice: none may change two optimiser steps.

The compiler takes minutes: tests/engines/test_compile.py.
"""

import pytest
import torch
from peft import LoraConfig

CHECKPOINTING = {
    "default": {"activation_checkpointing": True},
    "reentrant": {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}},
    "not reentrant": {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": False}},
    "by TRL's name": {"activation_checkpointing": None, "gradient_checkpointing": True},
}


def rollout(prompts, trainer):
    """Fixed completions of 4 to 8 tokens."""
    rng = torch.Generator().manual_seed(0)
    completions = [torch.randint(6, 100, (4 + i % 5,), generator=rng).tolist() for i in range(len(prompts))]
    return {
        "prompt_ids": [trainer.processing_class(prompt)["input_ids"] for prompt in prompts],
        "completion_ids": completions,
        "logprobs": None,
    }


def reward(completion_ids, **kwargs):
    return [float(sum(ids) % 3) for ids in completion_ids]


@pytest.fixture
def two_steps(make_trainer):
    """`two_steps(**config)` → the trainer after two steps on one batch, their losses and the flat update.

    The first step has ratio 1, the second another; a KL term and an entropy bonus are in the loss.
    """

    def run(peft_config=None, **config):
        trainer = make_trainer(
            reward_funcs=reward,
            trainer={"rollout_func": rollout, "peft_config": peft_config},
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
    """float32: both losses to 1e-6, the update to a relative 1e-5."""
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


@pytest.mark.parametrize("lora", [False, True], ids=["full", "LoRA"])
def test_checkpointing(two_steps, lora):
    """Also with frozen weights, where reentrant checkpointing without gradients at its input would train nothing."""
    peft_config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM") if lora else None
    expected = two_steps(peft_config)
    assert not expected[0].model.is_gradient_checkpointing
    for name, config in CHECKPOINTING.items():
        actual = two_steps(peft_config, **config)
        assert actual[0].model.is_gradient_checkpointing, name
        assert_same(actual, expected)
