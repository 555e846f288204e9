"""Settings that switch a reward off: each with the hazard, and without it."""

import pytest
from datasets import Dataset

from gbpo.run import reward_hazards
from gbpo.run.data.prompts import PromptFormat
from gbpo.run.models.tiny import character_tokenizer
from gbpo.run.recipe.arguments import RunArguments
from gbpo.run.rewards import load_rewards
from templates import OPEN, PLAIN, SWITCH

SUMS = Dataset.from_dict({"prompt": ["1+1=", "1+2="], "solution": ["2", "3"]})
NO_THOUGHTS = {"enable_thinking": False}


def rewards(*names, **options):
    return RunArguments(dataset_name="sums.jsonl", reward_funcs=list(names), reward_kwargs=options)


def found(run, template=PLAIN, limit=100, form=None, special=(), **options):
    tokenizer = character_tokenizer()
    tokenizer.chat_template = template
    tokenizer.add_special_tokens({"extra_special_tokens": list(special)})
    form = form or PromptFormat(prompt_template=r"{prompt} \boxed{}")
    return reward_hazards.find(run, form, SUMS, tokenizer, limit, **options)


LIMIT_80 = {"soft_overlong": {"max_completion_length": 80, "soft_buffer": 20}}
LIMIT_110 = {"soft_overlong": {"max_completion_length": 110, "soft_buffer": 20}}
LIMIT_120 = {"soft_overlong": {"max_completion_length": 120, "soft_buffer": 20}}

# what is given → words of the warning
CASES = {
    "penalty that begins at the limit": (
        {"run": rewards("soft_overlong", **LIMIT_120)},  # no completion has more than 120 - 20 tokens
        ["soft_overlong max_completion_length=120", "end at 100 tokens", "no completion is penalised", "Remove it"],
    ),
    "penalty that ends beyond the limit": (
        {"run": rewards("soft_overlong", **LIMIT_110)},
        ["max_completion_length=110", "no completion gets the reward of one that is too long"],
    ),
    "penalty that ends before the limit": (
        {"run": rewards("soft_overlong", **LIMIT_80)},
        ["max_completion_length=80", "all completions of 80 tokens or more get the same reward"],
    ),
    "cosine with another limit": (
        {"run": rewards("cosine", cosine={"max_completion_length": 101})},
        ["cosine max_completion_length=101", "no completion gets the reward of one that is too long"],
    ),
    "n-grams as long as a completion": (
        {"run": rewards("repetition", repetition={"ngram_size": 100})},
        ["ngram_size=100", "end at 100 tokens", "none is penalised"],
    ),
    "penalty on masked completions": (
        {"run": rewards("soft_overlong", soft_overlong={"soft_buffer": 20}), "masks_truncated": True},
        ["mask_truncated_completions=True with soft_overlong", "nothing is learnt", "remove soft_overlong"],
    ),
    "thoughts that begin in the prompt": (
        {"run": rewards("format"), "template": OPEN},
        ["every prompt ends with '<think>\\n'", "gets 0", r"pattern: '.+</think>\s*<answer>.+</answer>\s*'"],
    ),
    "thoughts that end in the prompt": (
        {"run": rewards("format"), "template": SWITCH, "form": PromptFormat(chat_template_kwargs=NO_THOUGHTS)},
        [r"every prompt ends with '<think>\n\n</think>\n\n'", r"pattern: '\s*<answer>.+</answer>\s*'"],
    ),
    "thoughts that begin in a text prompt": (
        {
            "run": rewards("format"),
            "template": None,
            "form": PromptFormat(prompt_template="{prompt} Assistant: <think>"),
        },
        ["every prompt ends with '<think>'"],
    ),
    "own pattern with thoughts": (
        {"run": rewards("format", format={"pattern": "<think>.*</think>.*"}), "template": OPEN},
        ["every prompt ends with '<think>\\n'"],
    ),
    "tags that are special tokens": (
        {"run": rewards("format"), "special": ["<think>", "</think>"]},
        ["format expects <think>, </think>", "special token", "every completion gets 0"],
    ),
    "answers in no box": (
        {"run": rewards("math"), "form": PromptFormat()},
        ["math reads the answer from \\boxed{} alone", "none of the first 2 prompts", "system_prompt"],
    ),
    "votes in no box": ({"run": rewards("majority_vote"), "form": PromptFormat()}, ["majority_vote reads"]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_reward_that_is_switched_off_is_a_hazard(case):
    given, words = CASES[case]
    (line,) = found(**given)
    assert "\n" not in line
    for word in words:
        assert word in line


# the same after the fix
FIXED = {
    "limit of the run": {"run": rewards("soft_overlong", "cosine", soft_overlong={"soft_buffer": 20})},
    "the same limit": {"run": rewards("cosine", cosine={"max_completion_length": 100})},
    "shorter n-grams": {"run": rewards("repetition", repetition={"ngram_size": 99})},
    "default n-grams": {"run": rewards("repetition")},
    "masked without a penalty": {"run": rewards("math"), "masks_truncated": True},
    "format with thoughts in the completion": {"run": rewards("format")},
    "format that may think": {"run": rewards("format"), "template": SWITCH},
    "pattern for open thoughts": {
        "run": rewards("format", format={"pattern": r".+</think>\s*<answer>.+</answer>\s*"}),
        "template": OPEN,
    },
    "thoughts in the middle of a prompt": {
        "run": rewards("format"),
        "form": PromptFormat(system_prompt="Write <think>…</think><answer>…</answer>."),
    },
    "other special tokens": {"run": rewards("format"), "special": ["<pause>"]},
    "votes on whole completions": {
        "run": rewards("majority_vote", majority_vote={"boxed": False}),
        "form": PromptFormat(),
    },
    "a model with a token for boxes": {
        "run": rewards("math"),
        "special": ["\\boxed{"],
        "form": PromptFormat(),
    },
    "box in the chat template": {
        "run": rewards("math"),
        "template": r"{{ 'Use \\boxed{}. ' }}" + PLAIN,
        "form": PromptFormat(),
    },
    "no box needed": {"run": rewards("exact_match"), "form": PromptFormat()},
    "own reward": {"run": rewards("rollouts.character_sum"), "form": PromptFormat()},
}


@pytest.mark.parametrize("case", FIXED)
def test_a_reward_that_can_be_earned_is_no_hazard(case):
    assert found(**FIXED[case]) == []


def test_the_suggested_patterns_match_what_follows_the_prompt():
    """The fixes of the two hazards above, with the completions of a model that goes on from the prompt."""
    for pattern, completion in (
        (r".+</think>\s*<answer>.+</answer>\s*", "two and two</think>\n<answer>4</answer>"),
        (r"\s*<answer>.+</answer>\s*", "\n<answer>4</answer>"),
    ):
        (reward,) = load_rewards(rewards("format", format={"pattern": pattern}), SUMS, 100)
        assert reward([completion, "4"]) == [1.0, 0.0]
        (default,) = load_rewards(rewards("format"), SUMS, 100)
        assert default([completion]) == [0.0]


def test_rewards_take_the_limit_of_the_completions():
    run = rewards("soft_overlong", "cosine", soft_overlong={"soft_buffer": 20})
    overlong, cosine = load_rewards(run, SUMS, 100)
    assert overlong([""] * 3, completion_ids=[[7] * 80, [7] * 90, [7] * 100]) == [0.0, -0.5, -1.0]
    assert cosine.max_completion_length == 100
    given, _ = load_rewards(rewards("soft_overlong", "cosine", **LIMIT_80), SUMS, 100)
    assert given.max_completion_length == 80
