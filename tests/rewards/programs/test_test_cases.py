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
        (10**6, 10**6 + 1, 1e-6, "wrong"),  # an integer is expected
        (10**6 + 1, 1e6, 1e-6, "ok"),
        (2.0**53, 2**53 + 1, 1e-3, "wrong"),  # equal as floats
        (7.0000001, 7, 1e-6, "ok"),
        (float("inf"), 7, 1e-6, "wrong"),
        (float("nan"), 7, 1e-6, "wrong"),
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


@pytest.mark.parametrize(
    ("output", "expected", "tolerance", "status"),
    [
        ("0.3333333333333333", "0.333333333333", 1e-6, "ok"),
        ("0.3333", "0.333333333333", 1e-6, "wrong"),
        ("1000001 2", "1000000.0 2", 1e-6, "ok"),  # relative
        ("1000003 2", "1000000.0 2", 1e-6, "wrong"),
        ("1000001 2", "1000000 2", 1e-6, "wrong"),  # an integer is expected
        ("1000001.0 2", "1000000 2", 1e-6, "wrong"),
        ("1000001 2", "1000000 2", 1, "ok"),
        ("9007199254740993", "9007199254740992", 1e-6, "wrong"),  # equal as floats
        ("9.007199254740992e15", "9007199254740993", 1e-6, "wrong"),
        ("7.0000001", "7", 1e-6, "ok"),
        ("1e-99999999999999999999", "7", 1e-6, "wrong"),
        ("-07", "-7", 1e-6, "ok"),
        ("0" * 5000 + "7", "7", 1e-6, "ok"),
        ("0.0000001", "0", 1e-6, "ok"),  # absolute
        ("x = 2.5000001", "x = 2.5", 1e-6, "ok"),
        ("y = 2.5", "x = 2.5", 1e-6, "wrong"),
        ("1 2\n3\n", "1\n2 3", 1e-6, "ok"),  # words, not lines
        ("1 2", "1 2 3", 1e-6, "wrong"),
        ("1 2 3", "1 2", 1e-6, "wrong"),
        ("", "", 1e-6, "ok"),
        ("", "0", 1e-6, "wrong"),
        ("5", "5.0", 0, "ok"),
        ("+5.", "5e0", 0, "ok"),
        ("5.1", "5.0", 0, "wrong"),
        ("2.5", "2", 0.5, "ok"),
        ("Yes 1", "YES 1", 1e-6, "wrong"),
        ("nan", "nan", 1e-6, "ok"),  # equal words
        ("nan", "0", 1e-6, "wrong"),
        ("inf", "1e308", 1e-6, "wrong"),
        ("1e400", "1e401", 1e-6, "wrong"),  # too large for floats
        ("9" * 5000, "9" * 5000, 1e-6, "ok"),
        ("9" * 5000, "8" * 5000, 1e-6, "wrong"),
        ("1_0", "10", 1e-6, "wrong"),
        ("0x10", "16", 1e-6, "wrong"),
        ("٥", "5", 1e-6, "wrong"),
        ("1e-6", "0", 1e-6, "ok"),
        ("True", "1", 1, "wrong"),
    ],
)
def test_numbers_of_an_output_may_differ_by_the_tolerance(output, expected, tolerance, status):
    (test,) = read_tests(stdin_tests(("", expected)) | {"tol": tolerance})
    assert test.status(Outcome("ok", output.encode())) == status


def test_a_tolerance_is_for_numbers_only_if_it_is_given():
    for tolerance in ({}, {"tol": None}):
        (test,) = read_tests(stdin_tests(("", "0.5")) | tolerance)
        assert [test.status(Outcome("ok", output)) for output in (b"0.5", b"0.50", b"0.5000001")] == [
            "ok",
            "wrong",
            "wrong",
        ]


STDIN, CALL = stdin_tests(("1", "2")), call_tests(([1], 2))


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        (STDIN | {"tolerance": 1e-6}, "a suite has the unknown key 'tolerance', .*; its keys are cases, tol, type$"),
        (STDIN | {"fn_name": "f"}, "a suite has the unknown key 'fn_name'"),
        (
            STDIN | {"cases": [{"input": "1", "output": "2", "weight": 2}]},
            "a case has the unknown key 'weight', .*input, o",
        ),
        (STDIN | {"cases": [{"input": "1", "output": "2", "expected": "2"}]}, "a case has the unknown key 'expected'"),
        (CALL | {"rtol": 1}, "a suite has the unknown key 'rtol', .*; its keys are cases, fn_name, tol, type$"),
        (
            CALL | {"cases": [{"args": [1], "expected": 2, "kwargs": {"a": 1}}]},
            "the unknown key 'kwargs', .*args, expected, or$",
        ),
        (CALL | {"cases": [{"args": [1], "expected": 2}, {"args": [1], "expected": 2, "x": 0}]}, "unknown key 'x'"),
        (CALL | {"k" * 99: 1}, f"unknown key '{'k' * 40}',"),
        (STDIN | {"tol": "1e-6"}, "tol must be null or a finite number of at least 0, got '1e-6'"),
        (STDIN | {"tol": -1}, "tol must be"),
        (STDIN | {"tol": float("inf")}, "tol must be"),
    ],
)
def test_a_key_or_a_tolerance_without_effect_is_refused(suite, message):
    with pytest.raises(ValueError, match=message) as refused:
        read_tests(suite)
    assert "\n" not in str(refused.value)


def test_the_functions_that_a_test_calls():
    suite = "assert f(1) + g(2) == 3\nassert f(3)"
    assert [test.functions for test in read_tests(suite)] == [["f", "g"], ["f"]]
    assert [test.functions for test in read_tests("def check(c): assert c(1)", "h")] == [["h"]]
    assert [test.functions for test in [*read_tests(CALL), *read_tests(STDIN)]] == [["f"], []]


@pytest.mark.parametrize(
    ("expected", "value", "status"),
    [([7], [7], "ok"), ([7], None, "wrong"), ([7], 7, "wrong"), ([None], None, "ok"), ([None], [None], "ok")],
)
def test_a_gap_of_a_table_is_no_other_right_value(expected, value, status):
    suite = {"type": "call", "fn_name": "f", "cases": [{"args": [], "expected": expected, "or": None}]}
    (test,) = read_tests(suite)
    assert test.status(Outcome("ok", wire.encode([value]).encode())) == status
