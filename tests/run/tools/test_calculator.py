"""The calculator calculates, and runs nothing else."""

import pytest

from gbpo.run.tools.calculator import calculator


@pytest.mark.parametrize(
    ("expression", "value"),
    [("123+456", "579"), (" (12+30)*2 ", "84"), ("-3-4", "-7"), ("7/2", "3.5"), ("0.5*4", "2.0"), ("+2", "2")],
)
def test_values(expression, value):
    assert calculator(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "1+",
        "2**9**9",
        "a",
        "__import__('os')",
        "'a'*9",
        "1 if 2 else 3",
        "True",
        "1//2",
        "[1][0]",
        "9*" * 100 + "9",
    ],
)
def test_other_expressions_are_refused(expression):
    with pytest.raises(ValueError, match="expression|only numbers|at most 200"):
        calculator(expression)


def test_a_division_by_zero_is_an_error():
    with pytest.raises(ZeroDivisionError):
        calculator("1/0")
