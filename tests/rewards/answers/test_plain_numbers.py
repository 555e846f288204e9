"""Plain numbers: which texts are numbers, and how they are written for the reward `math`."""

from fractions import Fraction

import pytest

from rewards.answers.math_answer import Math
from rewards.answers.plain_numbers import other_spellings, parse_number, to_latex
from rewards.shared.boxed import MAX_ANSWER, boxed


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("٣", None),  # an Arabic digit
        ("1e3", None),
        ("1_000", None),
        ("", None),
        (".", None),
        (r"\frac10", None),
        ("9" * (MAX_ANSWER + 1), None),
        ("9" * MAX_ANSWER, Fraction(int("9" * MAX_ANSWER))),
        ("-3/ 4", Fraction(-3, 4)),
        (r"+\frac{10}3", Fraction(10, 3)),
    ],
)
def test_the_value_of_a_text(text, value):
    assert parse_number(text) == value


def test_the_reward_math_reads_the_latex_of_every_plain_number():
    values = ["-0.50", "5.", ".25", r"-\frac{10}{4}", "007", "0." + "1" * 300]
    assert (
        Math().grade(
            [boxed(value) for value in ("-0.5", "5", ".25", "-2.5", "7", "0." + "1" * 300)],
            [boxed(to_latex(parse_number(value))) for value in values],
        )
        == ["ok"] * 6
    )


@pytest.mark.parametrize(
    ("text", "spellings"),
    [
        ("16", ["16", "16.0"]),
        ("-0.05", [r"-\frac{1}{20}", "-0.05"]),
        ("3/7", [r"\frac{3}{7}"]),  # no finite decimal
        ("21,500", ["21500", "21500.0"]),
        ("2.5e-3", [r"\frac{1}{400}", "0.0025"]),
        ("1e999", []),
        ("x", []),
    ],
)
def test_a_number_as_a_fraction_and_as_a_decimal(text, spellings):
    assert other_spellings(text) == spellings
