"""The reward `repetition`: values, bounds, options and logs."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trl.rewards import get_repetition_penalty_reward

from rewards.shape.repetition import Repetition
from rewards.shared.batch import REWARDS
from tests.rewards.builders import property_test

tokens = st.lists(st.integers(0, 3), max_size=40)
sizes = st.integers(1, 5)


def penalty(ids, **options):
    return Repetition(**options)(["…"], completion_ids=[ids])[0]


@pytest.mark.parametrize(
    ("ids", "size", "reward"),
    [
        ([1, 2, 3, 4], 2, 0.0),
        ([1, 2, 1, 2, 1], 2, -0.5),  # 12 21 12 21: 1 - 2/4
        ([5, 5, 5, 5, 5], 2, -0.75),  # 55 four times: 1 - 1/4
        ([1, 2, 3, 1, 2, 3], 3, -0.25),  # 123 231 312 123: 1 - 3/4
        ([1, 2, 3, 1, 2, 3], 1, -0.5),  # 1 - 3/6
        ([1, 2, 2, 1], 2, 0.0),  # 12 22 21: order matters
        ([1, 1, 1], 3, 0.0),  # one n-gram
        ([1, 1], 3, 0.0),  # none
        ([], 1, 0.0),
    ],
)
def test_the_fraction_of_repeated_ngrams(ids, size, reward):
    assert penalty(ids, ngram_size=size) == reward


def test_the_penalty_scales_and_zero_has_no_sign():
    assert penalty([5, 5, 5, 5, 5], ngram_size=2, max_penalty=-0.4) == pytest.approx(-0.3)  # -0.4 · 3/4
    assert penalty([5, 5, 5, 5, 5], ngram_size=2, max_penalty=0) == 0
    assert str(penalty([1, 2, 3], ngram_size=2)) == str(penalty([])) == "0.0"


def test_the_default_penalizes_a_loop_and_not_a_repeated_phrase():
    phrase = list(range(39))
    assert penalty(phrase + [100] + phrase + [101]) == 0.0  # 39 equal tokens, one less than an n-gram
    # 80 tokens twice: 160 - 39 = 121 n-grams. Those that start in the first 80 tokens are unique, 41 are repeated.
    assert penalty(list(range(80)) * 2) == pytest.approx(-41 / 121)


@property_test
@given(tokens, sizes)
def test_bounds_and_the_count_of_earlier_occurrences(ids, size):
    ngrams = [ids[start : start + size] for start in range(len(ids) - size + 1)]
    seen_before = sum(ngram in ngrams[:place] for place, ngram in enumerate(ngrams))
    assert penalty(ids, ngram_size=size, max_penalty=-2.0) == pytest.approx(-2 * seen_before / max(1, len(ngrams)))
    assert -2.0 < penalty(ids, ngram_size=size, max_penalty=-2.0) <= 0.0


@property_test
@given(tokens, sizes)
def test_the_penalty_has_the_value_of_trls_reward(ids, size):
    theirs = get_repetition_penalty_reward(ngram_size=size, max_penalty=-2.0)
    assert [penalty(ids, ngram_size=size, max_penalty=-2.0)] == pytest.approx(theirs(completion_ids=[ids]))


@property_test
@given(tokens, sizes)
def test_the_penalty_is_the_same_for_renamed_tokens_and_for_reversed_text(ids, size):
    assert penalty(ids, ngram_size=size) == penalty([7 - token for token in ids], ngram_size=size)
    assert penalty(ids, ngram_size=size) == penalty(ids[::-1], ngram_size=size)


@property_test
@given(tokens.filter(len), sizes)
def test_a_longer_loop_has_a_larger_penalty(ids, size):
    loop = [penalty(ids * (size + times), ngram_size=size) for times in (1, 2, 5)]
    assert 0.0 > loop[0] > loop[1] > loop[2]


@pytest.mark.parametrize(
    ("options", "fix"), [({"ngram_size": 0}, "give 1 or more"), ({"max_penalty": 0.5}, "such as -0.5")]
)
def test_an_option_out_of_range_is_refused(options, fix):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"{name}={value} .*{fix}"):
        Repetition(**options)


def test_pickling_chat_completions_statuses_and_metrics():
    columns, metrics = {}, {}
    reward = pickle.loads(pickle.dumps(Repetition(ngram_size=1)))
    values = reward(
        completions=[[{"role": "assistant", "content": "ab"}], []],
        prompts=["?"] * 2,
        completion_ids=[[1, 2], [1, 1]],
        trainer_state=None,
        log_extra=columns.__setitem__,
        log_metric=metrics.__setitem__,
    )
    assert values == [0.0, -0.5]
    assert columns == {"repetition/status": ["ok", "wrong"]}
    fractions = {"ok": 0.5, "wrong": 0.5}
    assert metrics == {f"rewards/repetition/{status}": fractions.get(status, 0.0) for status in REWARDS}
