"""A reward of the user is called once before a model is loaded."""

import math
from functools import partial

import numpy
import pytest
import torch

import rollouts
from gbpo.run.reward_trial import try_rewards

ROW = {"prompt": "1+1=", "solution": "2"}


@pytest.mark.parametrize(
    "values",
    [[0, 1.5], (None, 1.0), numpy.ones(2), torch.zeros(2), [True, False], [math.nan, None]],
    ids=["list", "tuple", "array", "tensor", "boolean", "nan"],
)
def test_what_trl_takes_is_taken(values):
    try_rewards({"own.reward": lambda **_: values}, ROW, 2)


@pytest.mark.parametrize(
    "values",
    [None, 1.0, [1.0], [1.0, 2.0, 3.0], ["1.0", "2.0"], [[1.0], [2.0]], "10", [{}, {}], [0.0, -math.inf]],
)
def test_something_else_is_refused_in_one_line(values):
    with pytest.raises(ValueError, match=r"^The reward 'own\.reward' returned .* for 2 completions.*None.*\.$"):
        try_rewards({"own.reward": lambda **_: values}, ROW, 2)


def yields(**_):
    yield from [0.0, 1.0]


async def yields_later(**_):
    yield 0.0


@pytest.mark.parametrize("reward", [yields, yields_later])
def test_a_generator_is_told_to_return_a_list(reward):
    with pytest.raises(ValueError, match=r"^The reward 'own\.reward' yields values, .* Return a list .* yield\.$"):
        try_rewards({"own.reward": reward}, ROW, 2)


def test_a_reward_that_logs_too_few_values_is_refused():
    def logs(completions, log_extra, values, **_):
        for part in values:
            log_extra("reason", part)
        return [0.0, 1.0]

    try_rewards({"own.logs": partial(logs, values=[["right"], ["wrong"]])}, ROW, 2)  # several calls fill a column
    with pytest.raises(ValueError, match=r"^The reward 'own\.logs' logs 1 values in 'reason' for 2 completions, .*\.$"):
        try_rewards({"own.logs": partial(logs, values=[["right"]])}, ROW, 2)


def test_an_error_is_one_line_with_its_place():
    def fails(completions, **_):
        raise RuntimeError("boom\nand more")

    line = fails.__code__.co_firstlineno + 1
    with pytest.raises(
        ValueError, match=rf"^The reward 'own\.fails' raised RuntimeError: boom and more .*py, line {line}\)"
    ):
        try_rewards({"own.fails": fails}, ROW, 2)


def test_a_reward_that_fails_for_an_empty_completion_is_refused():
    """A model may end a completion at once, perhaps late in a run."""
    for prompt in ("1+1=", [{"role": "user", "content": "1+1="}]):
        row = {**ROW, "prompt": prompt}

        def last_word(completions, **_):
            return [float(rollouts.text_of(one).split()[-1]) for one in completions]

        with pytest.raises(
            ValueError, match=r"raised IndexError: .* for the completions '0' and '' of the first prompt"
        ):
            try_rewards({"own.last_word": last_word}, row, 2)


def test_a_reward_without_kwargs_is_told_to_take_them():
    with pytest.raises(ValueError, match=r"unexpected keyword argument 'completions'\. Write .* \*\*kwargs"):
        try_rewards({"own.prompts": lambda prompts: [0.0]}, ROW, 2)


def test_a_reward_that_ends_the_process_is_an_error():
    def leaves(**_):
        raise SystemExit("no key")

    with pytest.raises(ValueError, match="raised SystemExit: no key"):
        try_rewards({"own.leaves": leaves}, ROW, 2)


def test_a_reward_that_takes_messages_for_text_is_told_where_the_text_is():
    chat = {**ROW, "prompt": [{"role": "user", "content": "1+1="}]}
    where = r"completion\[-1\]\['content'\]"
    with pytest.raises(ValueError, match=rf"no attribute 'strip' .* {where}"):
        try_rewards({"own.strip": lambda completions, **_: [one.strip() for one in completions]}, chat, 2)
    with pytest.raises(ValueError) as refused:
        try_rewards({"own.other": lambda **_: 1 / 0}, chat, 2)
    assert "messages" not in str(refused.value)


@pytest.mark.parametrize("is_chat", [False, True])
def test_a_reward_gets_what_trl_passes(is_chat):
    prompt = [{"role": "user", "content": "1+1="}] if is_chat else "1+1="
    seen = {}

    async def own(prompts, completions, completion_ids, solution, trainer_state, log_extra, log_metric, **others):
        log_extra("status", ["right"] * 3)
        log_metric("length", 1.0)
        seen.update(prompts=prompts, completions=completions, solution=solution, others=others)
        return [float(trainer_state.global_step)] * 3

    try_rewards({"own.reward": own}, {**ROW, "prompt": prompt, "completion": "never passed"}, 3)
    assert seen["prompts"] == [prompt] * 3 and seen["solution"] == ["2"] * 3 and seen["others"] == {}
    texts = [one[-1]["content"] if is_chat else one for one in seen["completions"]]
    assert len(texts) == 3 and all(isinstance(text, str) for text in texts)
