"""Infinite rewards end the run, and the message names the reward and the completion."""

import math

import pytest
import torch
from datasets import Dataset

from gbpo.shared.stopping import TrainingStopped
from gbpo.trainer.base import BaseTrainer
from gbpo.trainer.config import BaseConfig
from gbpo.trainer.guards.finite_rewards import check_rewards

NAN, INF = math.nan, math.inf


def check(rewards, prompts=None):
    check_rewards(torch.tensor(rewards), ["length", "own"], lambda: prompts or ["a", "b", "c"])


def test_finite_and_missing_rewards_pass_without_gathering_prompts():
    check_rewards(torch.tensor([[0.0, NAN], [-1e30, 2.0], [NAN, NAN]]), ["length", "own"], None)


@pytest.mark.parametrize(
    ("rewards", "name", "value", "row", "prompt"),
    [
        ([[0.0, 1.0], [0.0, INF], [0.0, 1.0]], "own", "inf", 1, "b"),
        ([[0.0, NAN], [NAN, 1.0], [-INF, INF]], "length", "-inf", 2, "c"),
        ([[INF, INF], [NAN, 1.0], [-INF, INF]], "length", "inf", 0, "a"),
        ([[0.0, 1.0], [0.0, 1.0], [0.0, 1e39]], "own", "inf", 2, "c"),  # beyond float32
    ],
)
def test_the_first_infinite_reward_is_named(rewards, name, value, row, prompt):
    with pytest.raises(TrainingStopped) as stop:
        check(rewards)
    message = str(stop.value)
    assert (
        f"The reward {name!r} is {value} for completion {row} of the generation, of the prompt {prompt!r}." in message
    )
    count = sum(math.isinf(value) or value > 1e38 for pair in rewards for value in pair)
    assert f"{count} of 6 rewards are infinite" in message and "\n" not in message


def test_a_long_prompt_or_a_chat_is_cut():
    with pytest.raises(TrainingStopped, match="the prompt 'a{80}…'") as stop:
        check([[INF, 0.0]], ["a" * 500])
    assert len(str(stop.value)) < 500
    with pytest.raises(TrainingStopped, match="'role': 'user', 'content': 'two\\\\\\\\nlines'"):
        check([[INF, 0.0]], [[{"role": "user", "content": "two\nlines"}]])


def infinite_for_b(prompts, completions, **kwargs):
    return [-math.inf if prompt == "b" else None if row % 2 else 1.0 for row, prompt in enumerate(prompts)]


async def infinite_for_b_later(prompts, completions, **kwargs):
    return infinite_for_b(prompts, completions)


@pytest.mark.parametrize("classes", [{}, {"base": BaseTrainer, "config_class": BaseConfig}], ids=["gbpo", "grpo"])
@pytest.mark.parametrize("reward", [infinite_for_b, infinite_for_b_later])
def test_an_infinite_reward_ends_the_run_before_the_step(make_trainer, classes, reward):
    trainer = make_trainer(
        **classes,
        reward_funcs=[reward],
        dataset=Dataset.from_dict({"prompt": ["a", "b"]}),
        max_steps=2,
        shuffle_dataset=False,
    )
    with pytest.raises(TrainingStopped, match=rf"The reward '{reward.__name__}' is -inf .* of the prompt 'b'"):
        trainer.train()
    assert trainer.state.global_step == 0
