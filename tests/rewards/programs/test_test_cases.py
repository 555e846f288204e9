"""Test cases: when a result counts as equal to the expected value."""

import pytest

from rewards.programs import wire
from rewards.programs.sandbox.box import Outcome
from rewards.programs.test_cases import read_tests
from tests.rewards.builders import call_tests, stdin_tests


@pytest.mark.parametrize(
    ("output", "expected", "status"),
    [
        ("9", "9\n", "ok"),
        ("9\n\n\n", "9", "ok"),
        ("9  \t\n", "9", "ok"),
        ("9\r\n8\r\n", "9\n8", "ok"),
        ("9\n8", "9\r\n8\r\n", "ok"),
        ("", "", "ok"),
        ("\n \n", "", "ok"),
        ("a b", "a  b", "wrong"),
        (" 9", "9", "wrong"),
        ("\n9", "9", "wrong"),
        ("9\n\n8", "9\n8", "wrong"),
        ("9\n8", "9", "wrong"),
        ("9", "9\n8", "wrong"),
        ("9\n", "9\n\n8", "wrong"),
        ("", "9", "wrong"),
        ("9", "", "wrong"),
        ("YES", "Yes", "wrong"),
        ("9.0", "9", "wrong"),
        ("é 漢 \U0001f600", "é 漢 \U0001f600", "ok"),
        ("e\u0301", "\u00e9", "wrong"),
    ],
)
def test_output_is_compared_without_white_space_at_line_ends(output, expected, status):
    (test,) = read_tests(stdin_tests(("", expected)))
    assert test.status(Outcome("ok", output.encode())) == status


@pytest.mark.parametrize(
    ("value", "expected", "tolerance", "status"),
    [
        (9, 9, None, "ok"),
        (9.0, 9, None, "ok"),  # equal in Python
        (True, 1, None, "ok"),
        (1, True, None, "ok"),
        ("9", 9, None, "wrong"),
        (None, None, None, "ok"),
        (None, False, None, "wrong"),
        ([], None, None, "wrong"),
        ((1, 2), [1, 2], None, "ok"),
        ([1, (2, [3])], [1, [2, (3,)]], None, "ok"),
        ([1, 2], [1, 2, 3], None, "wrong"),
        ([1, 2, 3], [1, 2], None, "wrong"),
        ([], [1], None, "wrong"),
        ({"a": (1,)}, {"a": [1]}, None, "ok"),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, None, "ok"),
        ({"a": 1}, {"a": 1, "b": None}, None, "wrong"),
        ({1: 2}, {"1": 2}, None, "wrong"),
        ({1, 2}, {2, 1}, None, "ok"),
        ({1, 2}, [1, 2], None, "wrong"),
        (b"x", "x", None, "wrong"),
        (0.1 + 0.2, 0.3, None, "wrong"),
        (0.1 + 0.2, 0.3, 0, "wrong"),
        (0.1 + 0.2, 0.3, 1e-9, "ok"),
        (1e6 + 1, 1e6, 1e-6, "ok"),  # relative
        (1e-7, 0, 1e-6, "ok"),  # absolute
        (1e-5, 0, 1e-6, "wrong"),
        ([(0.1 + 0.2,)], [[0.3]], 1e-9, "ok"),
        ({"a": [0.1 + 0.2]}, {"a": [0.3]}, 1e-9, "ok"),
        (2, 3, 1, "ok"),
        (True, 1.0000001, 1e-3, "wrong"),  # the tolerance does not apply to booleans
        (1.0000001, True, 1e-3, "wrong"),
        (True, 1, 1e-3, "ok"),
        (float("nan"), float("nan"), None, "wrong"),
        (float("nan"), float("nan"), 1e-3, "wrong"),
        (float("inf"), float("inf"), 1e-3, "ok"),
        (float("inf"), 1e308, 1e-3, "wrong"),
        (10**400, 10**400, 1e-3, "ok"),
        (10**400, 10**400 + 1, 1e-3, "wrong"),  # too large for floats, so compared exactly
        (10**400, 1.0, 1e-3, "wrong"),
        ("0.3", 0.3, 1e-3, "wrong"),
    ],
)
def test_values_are_compared_as_python_compares(value, expected, tolerance, status):
    (test,) = read_tests(call_tests(([], expected), tol=tolerance))
    assert test.status(Outcome("ok", wire.encode([value]).encode())) == status


@pytest.mark.parametrize("end", ["died", "overflow", "timeout"])
def test_a_program_that_did_not_finish_does_not_pass(end):
    (test,) = read_tests(stdin_tests(("", "")))
    assert test.status(Outcome(end, b"")) == ("timeout" if end == "timeout" else "died")
