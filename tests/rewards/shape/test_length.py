r"""The rewards for the length of a completion: values, bounds, groups on several ranks, and logs."""

import asyncio
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trl.rewards import get_soft_overlong_punishment

from rewards.answers.math_answer import Math
from rewards.shape.length import Cosine, Length, SoftOverlong, length_rewards
from rewards.shared.batch import REWARDS
from tests.rewards.builders import property_test, run_on_two_ranks

groups = st.lists(st.tuples(st.booleans(), st.integers(0, 50)), min_size=1, max_size=10)


class StatusGrader:
    """Uses each completion as its status. All reference answers must be 4."""

    failure_hint = "Look here."

    def grade(self, completions, solution):
        return list(completions) if all(reference == 4 for reference in solution) else []


def ids(*lengths):
    return [[7] * length for length in lengths]


def length(statuses, lengths, prompts=None, **logs):
    rows = len(statuses)
    batch = {"prompts": prompts or ["?"] * rows, "completion_ids": ids(*lengths), "solution": [4] * rows}
    return Length(StatusGrader())(statuses, **batch, **logs)


def cosine(statuses, lengths, **options):
    reward = Cosine(**{"max_completion_length": 100, "grader": StatusGrader(), **options})
    return asyncio.run(reward(statuses, completion_ids=ids(*lengths), solution=[4] * len(statuses)))


def soft_overlong(*lengths, limit=100, buffer=20):
    return SoftOverlong(limit, buffer)(["…"] * len(lengths), completion_ids=ids(*lengths))


# Length


@pytest.mark.parametrize(
    ("correct", "lengths", "expected"),
    [
        # (len - 10) / 40: 0, 1/4, 1/2, 1
        ([True] * 4, [10, 20, 30, 50], [0.5, 0.25, 0.0, -0.5]),
        ([False] * 4, [10, 20, 30, 50], [0.0, 0.0, 0.0, -0.5]),
        # the wrong completions are the shortest and the longest
        ([False, True, True, False], [10, 20, 40, 50], [0.0, 0.25, -0.25, -0.5]),
        ([True, True, False, False], [30, 30, 30, 30], [0.0] * 4),
        ([True], [30], [0.0]),
        ([True, False], [0, 1], [0.5, -0.5]),
        ([], [], []),
    ],
)
def test_length_of_a_group(correct, lengths, expected):
    assert length_rewards(correct, lengths) == expected
    assert length(["ok" if right else "wrong" for right in correct], lengths) == expected


def test_every_status_except_ok_counts_as_wrong():
    statuses = ["ok", "wrong", "unparsed", "timeout", "died", "ok"]
    # (len - 10) / 80: 0, 1/8, 1/4, 3/4, 7/8, 1
    assert length(statuses, [10, 20, 30, 70, 80, 90]) == [0.5, 0.0, 0.0, -0.25, -0.375, -0.5]


def test_completions_that_cannot_be_graded_are_ignored():
    assert length(["ok", "no_gold", "ok", "no_gold"], [20, 10, 40, 90]) == [0.5, None, -0.5, None]
    assert length(["no_gold", "no_gold"], [10, 20]) == [None, None]
    assert length(["ok", "no_gold"], [10, 20]) == [0.0, None]
    lengths = [20, 40, *[30] * 98, 1000]
    assert length(["ok", "wrong", *["ok"] * 98, "infra"], lengths) == [0.5, -0.5, *[0.0] * 98, None]


def test_more_than_one_percent_of_grader_failures_stops_the_run():
    with pytest.raises(RuntimeError, match="'length' could not grade 1 of 2 .* Look here."):
        length(["ok", "infra"], [10, 20])
    with pytest.raises(RuntimeError, match="'cosine' could not grade 1 of 2 .* Look here."):
        cosine(["ok", "infra"], [10, 20])


def test_completions_are_grouped_by_prompt_in_any_order():
    # a: 10, 30; b: 100, 200, 300
    prompts, lengths = ["a", "b", "b", "a", "b"], [10, 100, 200, 30, 300]
    expected = [0.5, 0.5, 0.0, -0.5, -0.5]
    assert length(["ok"] * 5, lengths, prompts) == expected
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    assert length(["ok"] * 5, lengths, chats) == expected


@property_test
@given(groups)
def test_bounds_extremes_and_order(group):
    correct, lengths = zip(*group, strict=True)
    values = length_rewards(correct, lengths)
    assert all(-0.5 <= value <= (0.5 if right else 0.0) for right, value in zip(correct, values, strict=True))
    if len(set(lengths)) > 1:
        for right, tokens, value in zip(correct, lengths, values, strict=True):
            if tokens == min(lengths):
                assert value == (0.5 if right else 0.0)
            if tokens == max(lengths):
                assert value == -0.5
    for right, tokens, value in zip(correct, lengths, values, strict=True):
        for other_right, other_tokens, other in zip(correct, lengths, values, strict=True):
            assert not (right >= other_right and tokens <= other_tokens) or value >= other


@property_test
@given(groups, st.integers(0, 1000), st.integers(1, 64), st.randoms(use_true_random=False))
def test_shift_scale_and_permutation(group, shift, scale, random):
    correct, lengths = zip(*group, strict=True)
    values = length_rewards(correct, lengths)
    moved = length_rewards(correct, [shift + scale * tokens for tokens in lengths])
    assert moved == pytest.approx(values)
    order = list(range(len(group)))
    random.shuffle(order)
    shuffled = length_rewards([correct[place] for place in order], [lengths[place] for place in order])
    assert shuffled == [values[place] for place in order]


TWO_RANKS = """
import json, sys
import torch.distributed as distributed
from rewards.shape.length import Length

class StatusGrader:
    failure_hint = ""
    def grade(self, completions, solution):
        return list(completions)

batch = json.loads(sys.argv[1])
distributed.init_process_group("gloo")
rank = distributed.get_rank()
mine = slice(0, batch["first"]) if rank == 0 else slice(batch["first"], None)
rewards = Length(StatusGrader())(
    batch["statuses"][mine],
    prompts=batch["prompts"][mine],
    completion_ids=[[7] * length for length in batch["lengths"][mine]],
    solution=[4] * len(batch["statuses"][mine]),
)
parts = [None, None]
distributed.all_gather_object(parts, rewards)
if rank == 0:
    print("RESULT", json.dumps(parts))
distributed.barrier()
distributed.destroy_process_group()
"""


def test_a_group_may_be_on_two_ranks(tmp_path):
    script = tmp_path / "two_ranks.py"
    script.write_text(TWO_RANKS)
    batch = {
        "first": 3,  # rows of rank 0; rank 1 has four
        "prompts": ["a", "b", "a", "b", "a", "b", "b"],
        "statuses": ["ok", "ok", "wrong", "wrong", "ok", "no_gold", "ok"],
        "lengths": [10, 100, 30, 200, 50, 900, 300],
    }
    # a: 10, 30, 50 on both ranks; b: 100, 200, 300 (its 900 has no reference answer)
    expected = [[0.5, 0.5, 0.0], [0.0, -0.5, None, -0.5]]
    assert length(batch["statuses"], batch["lengths"], batch["prompts"]) == expected[0] + expected[1]
    assert run_on_two_ranks(script, batch) == expected


# Cosine


@pytest.mark.parametrize(
    ("status", "tokens", "expected"),
    [
        # 1 + ½ (1 + cos(π L / 100))
        ("ok", 0, 2.0),
        ("ok", 25, 1.5 + math.sqrt(2) / 4),
        ("ok", 50, 1.5),
        ("ok", 75, 1.5 - math.sqrt(2) / 4),
        # -5 (1 + cos(π L / 100))
        ("wrong", 0, -10.0),
        ("wrong", 25, -5 - 5 * math.sqrt(2) / 2),
        ("wrong", 50, -5.0),
        ("wrong", 75, -5 + 5 * math.sqrt(2) / 2),
        ("unparsed", 50, -5.0),
        ("timeout", 50, -5.0),
        ("died", 50, -5.0),
        # at the limit, where generation stops, and above it
        ("ok", 99, 1.5 + 0.5 * math.cos(0.99 * math.pi)),
        ("wrong", 99, -5 - 5 * math.cos(0.99 * math.pi)),
        ("ok", 100, -10.0),
        ("wrong", 100, -10.0),
        ("ok", 101, -10.0),
        # not graded, at any length
        ("no_gold", 50, None),
        ("no_gold", 100, None),
    ],
)
def test_cosine_of_one_completion(status, tokens, expected):
    assert cosine([status], [tokens]) == [None if expected is None else pytest.approx(expected, abs=1e-12)]


def test_each_option_of_the_cosine_is_used():
    values = {"short_correct": 8.0, "long_correct": 6.0, "short_wrong": -3.0, "long_wrong": -2.0, "exceeded": -7.0}
    # 7 ± 1, -2.5 ± 0.5
    actual = cosine(["ok", "ok", "wrong", "wrong", "ok"], [0, 50, 0, 50, 100], **values)
    assert actual == pytest.approx([8.0, 7.0, -3.0, -2.5, -7.0])
    # the paper's reward A: correct completions get more the longer they are, wrong ones get 0
    actual = cosine(["ok", "ok", "wrong"], [0, 50, 50], short_correct=0, long_correct=10, short_wrong=0)
    assert actual == pytest.approx([0.0, 5.0, 0.0])


@property_test
@given(st.integers(1, 5000), st.data())
def test_shorter_is_better_if_correct_and_worse_if_wrong(limit, data):
    short, long = sorted(data.draw(st.integers(0, limit - 1)) for _ in range(2))
    reward = Cosine(max_completion_length=limit)
    assert 2.0 >= reward.value(True, short) >= reward.value(True, long) > 1.0
    assert -10.0 <= reward.value(False, short) <= reward.value(False, long) < 0.0
    assert reward.value(True, limit) == reward.value(False, limit) == -10.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_completion_length": 0}, "max_completion_length=0 .* give the trainer's"),
        ({"long_wrong": 1.5}, "long_wrong=1.5 is more than 1.0, .* give a lower value"),
        ({"short_wrong": 3, "long_correct": 2.5}, "short_wrong=3 is more than 2.0"),
        ({"exceeded": 1.01}, "exceeded=1.01 is more"),
        ({"short_correct": -1}, "long_wrong=0.0 is more than -1"),
    ],
)
def test_options_that_reward_wrong_completions_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Cosine(**{"max_completion_length": 100, **options})


# SoftOverlong


def test_soft_overlong_of_one_completion():
    # -(len - 80) / 20 from 80 to 100
    assert soft_overlong(0, 79, 80, 81, 90, 99, 100, 101, 5000) == [0.0, 0.0, 0.0, -0.05, -0.5, -0.95, -1.0, -1.0, -1.0]
    assert soft_overlong(0, 1, 3, 4, 5, limit=4, buffer=4) == [0.0, -0.25, -0.75, -1.0, -1.0]
    assert soft_overlong(3, 4, 5, limit=4, buffer=1) == [0.0, -1.0, -1.0]
    # the paper's options: no penalty up to 16384 tokens
    assert soft_overlong(16384, 18432, 20480, limit=20480, buffer=4096) == [0.0, -0.5, -1.0]


@property_test
@given(st.integers(1, 500), st.integers(0, 500), st.integers(0, 1100))
def test_soft_overlong_decreases_by_at_most_one_step(buffer, free, tokens):
    reward = SoftOverlong(free + buffer, buffer)
    here, beyond = reward.value(tokens), reward.value(tokens + 1)
    assert -1.0 <= beyond <= here <= 0.0
    assert here - beyond <= 1 / buffer + 1e-12
    assert (here == 0.0) == (tokens <= free) and (here == -1.0) == (tokens >= free + buffer)


@property_test
@given(st.integers(1, 500), st.integers(0, 500), st.integers(0, 1100))
def test_soft_overlong_has_the_values_of_trls_reward(buffer, free, tokens):
    theirs = get_soft_overlong_punishment(max_completion_len=free + buffer, soft_punish_cache=buffer)
    assert soft_overlong(tokens, limit=free + buffer, buffer=buffer) == theirs(completion_ids=ids(tokens))


@pytest.mark.parametrize("buffer", [0, -1, 101])
def test_a_buffer_out_of_range_is_refused(buffer):
    with pytest.raises(ValueError, match=f"soft_buffer={buffer} with max_completion_length=100 .* from 1 to"):
        SoftOverlong(max_completion_length=100, soft_buffer=buffer)


# All three rewards


def test_statuses_and_metrics():
    columns, metrics = {}, {}
    logs = {"log_extra": columns.__setitem__, "log_metric": metrics.__setitem__}
    length(["ok", "wrong", "no_gold", "ok"], [10, 20, 30, 40], **logs)
    batch = {"completion_ids": ids(10, 95), "prompts": ["?"] * 2, "trainer_state": None, **logs}
    asyncio.run(Cosine(100, grader=StatusGrader())(["ok", "wrong"], solution=[4, 4], **batch))
    SoftOverlong(100, 20)(["…"] * 2, **batch)
    assert columns == {
        "length/status": ["ok", "wrong", "no_gold", "ok"],
        "cosine/status": ["ok", "wrong"],
        "soft_overlong/status": ["ok", "wrong"],
    }
    fractions = {"length/ok": 0.5, "length/wrong": 0.25, "length/no_gold": 0.25}
    fractions |= {f"{name}/{status}": 0.5 for name in ("cosine", "soft_overlong") for status in ("ok", "wrong")}
    names = [f"{name}/{status}" for name in ("length", "cosine", "soft_overlong") for status in REWARDS]
    assert metrics == {f"rewards/{name}": fractions.get(name, 0.0) for name in names}


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(ValueError):
        length(["ok", "ok"], [10])
    with pytest.raises(ValueError):
        length(["ok", "ok"], [10, 20], prompts=["?"])
    with pytest.raises(ValueError):
        cosine(["ok", "ok"], [10])


def test_they_pickle():
    for reward in (Length(Math(workers=1)), Cosine(100, exceeded=-3), SoftOverlong(100, 20)):
        assert pickle.loads(pickle.dumps(reward)) == reward


def test_the_reward_math_decides_what_is_correct():
    grader = Math(workers=1)
    texts = [r"\boxed{4.0}", r"\boxed{5}", "4", r"\boxed{4}", r"\boxed{4}"]
    chats = [[{"role": "assistant", "content": text}] for text in texts]
    batch = {"completion_ids": ids(20, 30, 40, 60, 90), "solution": [4, 4, 4, "4", None]}
    # (len - 20) / 40: 0, 1/4, 1/2, 1
    assert Length(grader)(chats, prompts=["?"] * 5, **batch) == [0.5, 0.0, 0.0, -0.5, None]
    values = asyncio.run(Cosine(60, grader=grader)(chats, **batch))
    # L / 60: 1/3, 1/2, 2/3, 1; cos 0.5, 0, -0.5
    assert values == [pytest.approx(1.75), pytest.approx(-5.0), pytest.approx(-2.5), -10.0, None]
    grader.close()
