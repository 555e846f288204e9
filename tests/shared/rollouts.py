"""Rewards and rollouts that tests of several files share. All are deterministic."""

import random

import torch


def text_of(completion):
    """The text of a completion, which TRL passes as text or as a list of messages."""
    return completion if isinstance(completion, str) else completion[-1]["content"]


# --- rewards


def equal_rewards(completions, **kwargs):
    """0 for every completion: no group has a signal."""
    return [0.0] * len(completions)


def count_digits(completions, **kwargs):
    """The number of digits of each completion."""
    return [float(sum(c.isdigit() for c in text_of(completion))) for completion in completions]


def character_sum(completions, **kwargs):
    """The sum of each completion's character codes modulo 5."""
    return [float(sum(map(ord, text_of(completion))) % 5) for completion in completions]


def token_sum(completion_ids, **kwargs):
    """The sum of each completion's token ids modulo 3."""
    return [float(sum(ids) % 3) for ids in completion_ids]


def in_turn(values):
    """A reward function that gives the rows of every batch these values, repeated as often as needed."""

    def reward(completions, **kwargs):
        return [values[i % len(values)] for i in range(len(completions))]

    return reward


# --- rollouts: what `rollout_func` of TRL returns


def rollout_of(trainer, prompts, completion_ids, **fields):
    """A rollout with these completions and further fields, for example `env_mask`."""
    encode = trainer.processing_class
    prompt_ids = [encode(prompt)["input_ids"] for prompt in prompts]
    return {"prompt_ids": prompt_ids, "completion_ids": completion_ids, "logprobs": None, **fields}


def ended(trainer, texts):
    """Token ids of texts, each with the end token."""
    encode = trainer.processing_class
    return [[*encode(text)["input_ids"], encode.eos_token_id] for text in texts]


def random_rollout(*lengths):
    """A `rollout_func` whose completions are random tokens, as many as one of `lengths`, and the end token."""

    def rollout(prompts, trainer):
        rng = random.Random(" ".join(prompts))
        torch.manual_seed(0)  # TRL shuffles the rows of a generation
        end = [trainer.processing_class.eos_token_id]
        completions = [[rng.randrange(6, 100) for _ in range(rng.choice(lengths))] + end for _ in prompts]
        return rollout_of(trainer, prompts, completions)

    return rollout
