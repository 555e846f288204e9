"""The reward `exact_match`: which completions match, and what is logged."""

import pickle

import pytest

from rewards.answers.exact_match import ExactMatch
from rewards.shared.batch import REWARDS


@pytest.mark.parametrize(
    ("completion", "reference", "reward"),
    [
        ("57", "57", 1.0),
        (" 57\n", "57 ", 1.0),
        ("57", 57, 1.0),
        ("-3", -3, 1.0),
        ("0", 0, 1.0),  # a reference answer that is false in Python
        ("58", "57", 0.0),
        ("57.0", 57, 0.0),  # text is compared, not values
        ("The answer is 57", "57", 0.0),
        ("", "57", 0.0),
        ("57", None, None),
        ("57", "", None),
        ("", "  ", None),  # blank text does not match blank text
        ("nan", float("nan"), None),
        ("57", ["57"], None),
    ],
)
def test_one_completion(completion, reference, reward):
    assert ExactMatch()([completion], solution=[reference]) == [reward]


def test_chat_completions_and_unused_columns():
    chat = [[{"role": "assistant", "content": "57"}], [{"role": "assistant", "content": None}]]
    assert ExactMatch()(completions=chat, prompts=["a", "b"], trainer_state=None, solution=[57, 57]) == [1.0, 0.0]


def test_it_pickles():
    assert pickle.loads(pickle.dumps(ExactMatch()))(["57"], solution=["57"]) == [1.0]


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(ValueError):
        ExactMatch()(["57", "58"], solution=["57"])


def test_the_fraction_of_every_status_is_logged():
    columns, metrics = {}, {}
    reward = ExactMatch()(
        ["1", "2", "3", "4"],
        solution=["1", "0", "3", None],
        log_extra=columns.__setitem__,
        log_metric=metrics.__setitem__,
    )
    assert reward == [1.0, 0.0, 1.0, None]
    assert columns == {"exact_match/status": ["ok", "wrong", "ok", "no_gold"]}
    fractions = {"ok": 0.5, "wrong": 0.25, "no_gold": 0.25}
    assert metrics == {f"rewards/exact_match/{status}": fractions.get(status, 0.0) for status in REWARDS}
    assert len(metrics) == 7
