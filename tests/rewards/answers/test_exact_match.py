"""The reward `exact_match`: which completions match, and what is logged."""

import pickle

import pytest

from rewards.answers.exact_match import ExactMatch
from rewards.shared.batch import REWARDS
from rewards.shared.boxed import MAX_ANSWER


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


WHOLE_NUMBER = "is a float, so the completion 61 gets no reward; store integers or text"


@pytest.mark.parametrize(
    ("solution", "statuses"),
    [
        (["61", 61, " yes ", "0061", "61.0"], ["ok"] * 5),
        ([None, "", float("nan")], ["no_gold"] * 3),
        ([61.0, float("nan")], [f"61.0 {WHOLE_NUMBER}", "no_gold"]),  # one missing value turns integers into floats
        ([61.0, 0.5], ["ok", "ok"]),  # decimals were meant
        (["50+11=61 #### 61"], ["a whole solution; write dataset_extract: {solution: after ####}"]),
        ([r"It is \boxed{61}."], ["a solution with a box; write dataset_extract: {solution: last box}"]),
        (['["61"]'], ["a list with one text; write dataset_extract: {solution: json list}"]),
        (["a" * MAX_ANSWER], ["ok"]),
        (["a" * 401], ["a text of 401 characters, which no completion repeats exactly; give the answer alone"]),
    ],
)
def test_whether_a_model_could_write_the_reference_answers(solution, statuses):
    assert ExactMatch().check_references(solution) == statuses


def test_what_a_completion_must_equal():
    assert ExactMatch().read_references([61.0, 61, " a b\n", None]) == ["'61.0'", "'61'", "'a b'", "''"]
