"""Exact match, and what all rewards share: reading TRL's batch and reporting on it."""

import pickle

import pytest

from rewards.answers.exact_match import ExactMatch
from rewards.shared.batch import REWARDS


@pytest.mark.parametrize(
    ("completion", "gold", "reward"),
    [
        ("57", "57", 1.0),
        (" 57\n", "57 ", 1.0),
        ("57", 57, 1.0),
        ("-3", -3, 1.0),
        ("0", 0, 1.0),  # a gold that is false is still a gold
        ("58", "57", 0.0),
        ("57.0", 57, 0.0),  # text, not values
        ("The answer is 57", "57", 0.0),
        ("", "57", 0.0),
        ("57", None, None),
        ("57", "", None),
        ("", "  ", None),  # two blanks are no match
        ("nan", float("nan"), None),
        ("57", ["57"], None),
    ],
)
def test_exact_match_of_one_completion(completion, gold, reward):
    assert ExactMatch()([completion], solution=[gold]) == [reward]


def test_chat_completions_and_columns_it_does_not_read():
    chat = [[{"role": "assistant", "content": "57"}], [{"role": "assistant", "content": None}]]
    assert ExactMatch()(completions=chat, prompts=["a", "b"], trainer_state=None, solution=[57, 57]) == [1.0, 0.0]


def test_it_pickles():
    assert pickle.loads(pickle.dumps(ExactMatch()))(["57"], solution=["57"]) == [1.0]


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(ValueError):
        ExactMatch()(["57", "58"], solution=["57"])


def test_every_status_is_logged_with_its_share_whether_it_occurred_or_not():
    columns, metrics = {}, {}
    reward = ExactMatch()(
        ["1", "2", "3", "4"],
        solution=["1", "0", "3", None],
        log_extra=columns.__setitem__,
        log_metric=metrics.__setitem__,
    )
    assert reward == [1.0, 0.0, 1.0, None]
    assert columns == {"exact_match/status": ["ok", "wrong", "ok", "no_gold"]}
    shares = {"ok": 0.5, "wrong": 0.25, "no_gold": 0.25}
    assert metrics == {f"rewards/exact_match/{status}": shares.get(status, 0.0) for status in REWARDS}
    assert len(metrics) == 7
