"""`builtin:code_word`: the letters that it shows, its answers and its reward."""

import random

import pytest

from gbpo.run.environments.code_word import CodeWord


def code_of(seed):
    """The code of a row, by the definition of the environment."""
    letters = random.Random(seed)
    return "".join(letters.choice("abcdefgh") for _ in range(2))


@pytest.fixture
def began():
    environment = CodeWord()
    assert environment.reset(seed=3, prompt="") == "Find the code."
    return environment


def test_each_question_shows_the_next_letter(began):
    assert code_of(3)[0] != code_of(3)[1]
    assert [began.ask() for _ in range(4)] == [*code_of(3), "no more", "no more"]


def test_the_first_answer_counts(began):
    assert began.get_reward() == 0.0
    assert (began.answer("zz"), began.get_reward()) == ("wrong", 0.0)
    assert (began.answer(code_of(3)), began.get_reward()) == ("wrong", 0.0)


def test_a_new_episode_has_the_code_of_its_row(began):
    assert (began.answer(code_of(3)), began.get_reward()) == ("right", 1.0)
    began.ask()
    began.reset(seed=4)
    assert began.get_reward() == 0.0
    assert code_of(4) != code_of(3)
    assert [began.ask(), began.ask()] == [*code_of(4)]
    assert (began.answer(code_of(4)), began.get_reward()) == ("right", 1.0)
