"""Test cases of programs: read them from a data set, write the request for the sandbox, and judge its answer."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import pickle
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from ..shared.concurrency import map_in_threads
from . import wire
from .assertions import Assertion, Call, parse_assertions
from .sandbox.box import Box, Outcome
from .suites.formats import read_suite
from .suites.scripts import ScriptTest, read_script, run_script

# The keys of a suite and of its cases, by the suite's type. A key whose value is None counts as absent.
_KEYS = {
    "stdin": ({"type", "cases", "tol"}, {"input", "output"}),
    "call": ({"type", "cases", "tol", "fn_name"}, {"args", "expected", "or"}),
}
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)

logger = logging.getLogger(__name__)

_BOX = Box()


@dataclass(frozen=True)
class ProgramTest:
    """One test: the request for the box, and a check of the box's answer. The expected value stays in this process."""

    request: dict[str, Any]  # an element of the `tests` that `Box.run` takes
    passes: Callable[[bytes], bool]

    @property
    def functions(self) -> list[str]:
        """The functions of the program that the test calls; none for a test of standard output."""
        return [call["function"] for call in self.request.get("calls", ())]

    def status(self, outcome: Outcome) -> str:
        """The status of an outcome, a key of `rewards.shared.batch.REWARDS`."""
        if outcome.end == "ok":
            return "ok" if self.passes(outcome.data) else "wrong"
        return "timeout" if outcome.end == "timeout" else "died"


def read_tests(
    column: Any, entry_point: str | None = None, box: Box = _BOX, tol: float | None = None
) -> list[ProgramTest] | list[ScriptTest]:
    """Read the tests of one row.

    Args:
        column: The row's value in the column `tests`, in any form that the reward `code` accepts.
        entry_point: The name of the function that assert statements or `check` test.
        box: The sandbox for the suite's own code, if the suite cannot be split into calls.
        tol: The tolerance of a suite that gives none, if it has cases.

    Raises:
        ValueError: The tests cannot be read, there are none, or the suite cannot run.
        BoxError: The sandbox itself failed.
    """
    tests = read_suite(column).tests
    entry_point = entry_point and entry_point.strip().removesuffix("()").replace("Solution.", "Solution().")
    name = entry_point and entry_point.removeprefix("Solution().")
    if isinstance(tests, str):
        found = _read_code(tests, name, box)
        if name != entry_point:
            _check_names(found, name)
        return found
    cases = tests.get("cases")
    if not isinstance(cases, list) or not cases or not all(isinstance(case, dict) for case in cases):
        raise ValueError(f"tests={str(column)[:80]!r} have no list of cases")
    reader = {"stdin": _stdin_test, "call": _call_test}.get(str(tests.get("type")))
    if reader is None:
        raise ValueError(f"tests have the type {tests.get('type')!r}; write 'stdin' or 'call'")
    known_to_suite, known_to_case = _KEYS[tests["type"]]
    _check_keys("suite", tests, known_to_suite)
    for case in cases:
        _check_keys("case", case, known_to_case)
    check_tolerance(tests.get("tol"))
    if tests.get("tol") is None:
        tests = tests | {"tol": tol}
    return [reader(case, tests) for case in cases]


def _read_code(suite: str, entry_point: str | None, box: Box) -> list[ProgramTest] | list[ScriptTest]:
    """Read a suite of Python code: as calls if all its statements are assertions, else as a script."""
    try:
        return [_assert_test(assertion) for assertion in parse_assertions(suite, entry_point)]
    except ValueError as error:
        not_split = error
    try:
        return read_script(suite, entry_point, box)
    except ValueError as error:
        raise ValueError(f"{str(not_split).removesuffix('.')}. As a script, {error}") from None


def _check_names(tests: list[ProgramTest] | list[ScriptTest], method: str | None) -> None:
    """Check that tests of a method of the class Solution use no other name of the program."""
    used = {name for test in tests for name in test.functions if not isinstance(test, ScriptTest) or test.do != "test"}
    if unknown := sorted(used - {method, "Solution"}):
        raise ValueError(
            f"the tests use {', '.join(unknown)}, which neither they nor the class Solution define; write the "
            "definitions at the beginning of the tests"
        )


def describe_tests(tests: Sequence[ProgramTest] | Sequence[ScriptTest]) -> str:
    """The tests of one row in words, for example `stdin, 1 case`, `call f, 2 cases` or `2 tests`."""
    if isinstance(tests[0], ScriptTest) and tests[0].do == "test":
        return _counted(tests, "test")
    functions = list(dict.fromkeys(name for test in tests for name in test.functions))
    kind = f"call {' and '.join(functions)}" if functions else "stdin"
    return f"{kind}, {_counted(tests, 'case')}"


def _counted(items: Sequence[Any], noun: str) -> str:
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


def run_tests(
    box: Box, program: str, tests: Sequence[ProgramTest] | Sequence[ScriptTest], prelude: str = ""
) -> Generator[str, None, None]:
    """Run a program on the tests of one row, one after another. Closing the iterator ends the sandbox.

    Yields:
        One status per test, a key of `rewards.shared.batch.REWARDS`.

    Raises:
        BoxError: The sandbox itself failed.
    """
    scripts = [test for test in tests if isinstance(test, ScriptTest)]
    if scripts:
        yield from run_script(box, program, scripts, prelude)
        return
    calls = [test for test in tests if isinstance(test, ProgramTest)]
    with contextlib.closing(box.run(program, [test.request for test in calls], prelude)) as outcomes:
        for test, outcome in zip(calls, outcomes, strict=True):
            yield test.status(outcome)


def read_all_tests(
    tests: Sequence[Any],
    entry_point: Sequence[str | None] | None,
    box: Box = _BOX,
    workers: int = 1,
    tol: float | None = None,
) -> list[list[ProgramTest] | list[ScriptTest] | None]:
    """Read the tests of a batch. Equal rows are read once. All rows that cannot be read are logged in one line.

    Args:
        tests: The column `tests`.
        entry_point: The column `entry_point`, if there is one.
        box: As in `read_tests`.
        workers: Number of rows that are read at the same time.
        tol: As in `read_tests`.

    Returns:
        The tests of each row, or None if they cannot be read.

    Raises:
        BoxError: The sandbox itself failed.
    """
    rows = list(zip(tests, entry_point or [None] * len(tests), strict=True))
    keys = [(pickle.dumps(column), name) for column, name in rows]  # keeps types apart; `repr` refuses long integers
    distinct = dict(zip(reversed(keys), reversed(range(len(rows))), strict=True))  # key -> its first row

    def read(row: int) -> list[ProgramTest] | list[ScriptTest] | ValueError:
        try:
            return read_tests(*rows[row], box, tol)
        except ValueError as error:
            return error

    first = sorted(distinct.values())
    results = dict(zip(first, map_in_threads(read, first, workers), strict=True))
    errors = [(row, result) for row, result in results.items() if isinstance(result, ValueError)]
    found = [None if isinstance(result := results[distinct[key]], ValueError) else result for key in keys]
    if errors:
        row, error = errors[0]
        logger.warning(
            "Tests that cannot be read are skipped: row %d: %s (%d of %d rows in all).",
            row,
            str(error).removesuffix("."),
            found.count(None),
            len(found),
        )
    return found


def _stdin_test(case: dict[str, Any], suite: dict[str, Any]) -> ProgramTest:
    if not isinstance(case.get("input"), str) or not isinstance(case.get("output"), str):
        raise ValueError(f"a stdin case needs 'input' and 'output', both text: {str(case)[:80]}")
    tolerance = suite.get("tol")
    expected = _output_lines(case["output"]) if tolerance is None else case["output"].split()

    def passes(data: bytes) -> bool:
        output = data.decode("utf-8", "replace")
        if tolerance is None:
            return _output_lines(output) == expected
        words = output.split()
        return len(words) == len(expected) and all(map(_is_close_word, words, expected, itertools.repeat(tolerance)))

    return ProgramTest({"stdin": case["input"]}, passes)


def _is_close_word(word: str, expected: str, tolerance: float) -> bool:
    """Whether two words are equal, or are finite decimal numbers that differ by at most `tolerance`.

    If an integer is expected, they may differ absolutely, not relatively. A large integer may have wrong last digits,
    for example after a division of floats.
    """
    if word == expected:
        return True
    if not (_NUMBER.fullmatch(word) and _NUMBER.fullmatch(expected)):
        return False
    numbers = float(word), float(expected)
    if not all(map(math.isfinite, numbers)):
        return False
    if _INTEGER.fullmatch(expected):
        number = Fraction(Decimal(word) if _INTEGER.fullmatch(word) else numbers[0])  # `int` reads no long text
        return abs(number - Fraction(Decimal(expected))) <= tolerance
    return math.isclose(*numbers, rel_tol=tolerance, abs_tol=tolerance)


def _check_keys(part: str, given: dict[str, Any], known: set[str]) -> None:
    unknown = [key for key, value in given.items() if key not in known and value is not None]
    if unknown:
        raise ValueError(
            f"a {part} has the unknown key {str(unknown[0])[:40]!r}, which would have no effect; its keys are "
            f"{', '.join(sorted(known))}"
        )


def check_tolerance(tolerance: Any) -> None:
    if tolerance is not None and (type(tolerance) not in (int, float) or not 0 <= tolerance < math.inf):
        raise ValueError(f"tol must be null or a finite number of at least 0, got {tolerance!r}")


def _output_lines(text: str) -> list[str]:
    """The lines of a text without white space at their ends, and without blank lines at the end of the text."""
    return "\n".join(line.rstrip() for line in text.split("\n")).rstrip("\n").split("\n")


def _call_test(case: dict[str, Any], suite: dict[str, Any]) -> ProgramTest:
    name, tolerance = suite.get("fn_name"), suite.get("tol")
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"call tests need fn_name, the name of a function, got {name!r}")
    if not isinstance(case.get("args"), list) or "expected" not in case:
        raise ValueError(f"a call case needs 'args', a list, and 'expected': {str(case)[:80]}")
    try:
        request = _call_request([Call(name, tuple(case["args"]))])
        right = [case["expected"]]
        if case.get("or") is not None or case["expected"] == [None]:  # a table fills gaps with None
            right += [case["or"]] if "or" in case else []
        expected = [wire.decode(wire.encode(value)) for value in right]
    except TypeError as error:
        raise ValueError(f"{error}: {str(case)[:80]}") from None

    def passes(data: bytes) -> bool:
        values = _returned_values(data)
        return len(values) == 1 and any(_equal(values[0], right, tolerance) for right in expected)

    return ProgramTest(request, passes)


def _assert_test(assertion: Assertion) -> ProgramTest:
    return ProgramTest(_call_request(assertion.calls), lambda data: assertion.holds(_returned_values(data)))


def _returned_values(data: bytes) -> list[Any]:
    """The values that the calls of a test returned; empty if the program wrote anything else."""
    try:
        values = wire.decode(data)
    except ValueError:
        return []
    return values if isinstance(values, list) else []


def _call_request(calls: Sequence[Call]) -> dict[str, Any]:
    return {
        "calls": [
            {
                "function": call.function,
                "args": wire.encode(call.args),
                "kwargs": wire.encode(call.kwargs),
                "items": call.items,
            }
            for call in calls
        ]
    }


def _equal(value: Any, expected: Any, tolerance: float | None) -> bool:
    """Whether values are equal as in Python, except that lists equal tuples, and numbers may differ by `tolerance`.

    If an integer is expected, they may differ absolutely, not relatively.
    """
    if isinstance(expected, (list, tuple)) and isinstance(value, (list, tuple)):
        pairs = zip(value, expected, strict=False)
        return len(value) == len(expected) and all(_equal(a, b, tolerance) for a, b in pairs)
    if isinstance(expected, dict) and isinstance(value, dict):
        return value.keys() == expected.keys() and all(_equal(value[key], expected[key], tolerance) for key in expected)
    if tolerance is not None and {type(value), type(expected)} <= {int, float}:
        with contextlib.suppress(OverflowError, ValueError):  # an integer too large for a float, or infinity or NaN
            if type(expected) is int:
                return abs(Fraction(value) - expected) <= tolerance
            return math.isclose(value, expected, rel_tol=tolerance, abs_tol=tolerance)
    return value == expected
