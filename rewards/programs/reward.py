"""Programs, run in the box on tests whose expected values never enter it; the verdict is made outside."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..shared.batch import Completion, completion_text, default_workers, in_thread, in_threads, report
from . import assertions
from . import wire as plain
from .sandbox.box import Box, BoxError, Outcome

_OPENING = re.compile(r"^```(?:python|python3|py)[ \t]*\n", re.MULTILINE | re.IGNORECASE)
_CLOSING = re.compile(r"^```[ \t]*$", re.MULTILINE)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Code:
    """1.0 when the completion's last Python block passes all tests, run in a sandbox.

    The sandbox is proved by canaries when the reward is made (`python -m rewards.box` shows them); a missing layer is
    refused by name. A program runs with the standard library alone, one process for each test; it may print, recurse,
    use threads and write to `/tmp` (16 MiB, 10,000 files), but start no other process.

    Args:
        partial: Pay the fraction of tests passed, instead of 1.0 for all and 0.0 for less.
        workers: Programs run at the same time; by default the processors of this process but one.
        sandbox: `"auto"`, `"bubblewrap"`, `"sandlock"` or `"e2b"`, as in `rewards.box.Box`.
        allow_missing: Layers, keys of `sandbox.canaries.LAYERS`, without which programs may run all the same.
        seconds: Processor seconds of one test; its wall clock is three times as long.
        total_seconds: Wall-clock seconds of all tests of one program.
        memory_mb: MiB of address space of one test.

    Columns read:
        tests: One of
            - `{"type": "stdin", "cases": [{"input": text, "output": text}]}`: compared line by line, white space at
              line ends and blank lines at the end aside;
            - `{"type": "call", "fn_name": name, "cases": [{"args": [...], "expected": value}], "tol": 1e-6}`: a
              function, or a method of the class `Solution`; compared as Python compares, list and tuple alike, floats
              within `tol` (relative and absolute) where it is given;
            - assert statements as text, or a list of them, which `rewards.programs.assertions.lift` can take apart.
            The first two also as JSON text. None or blank text is no gold.
        entry_point: If there is such a column, the function that assert statements test; for suites that end with
            `def check(candidate)`, as HumanEval's, and for functions with the name of a builtin.

    Returns:
        Per completion: 1.0 (`ok`), 0.0 or with `partial` a fraction (`wrong`, `unparsed`, `timeout`, `died`), or None
        (`no_gold`: the tests cannot be read; `infra`).

    Raises:
        ValueError: An option has no meaning, no sandbox comes up, or a layer is missing.
        RuntimeError: More than 1 % of a batch is `infra`.

    >>> import asyncio
    >>> program = "```python\\nprint(int(input()) ** 2)\\n```"
    >>> tests = {"type": "stdin", "cases": [{"input": "3", "output": "9"}, {"input": "4", "output": "16"}]}
    >>> asyncio.run(Code()([program, "no program"], tests=[tests, "assert square(2) == 4"]))
    [1.0, 0.0]
    """

    partial: bool = False
    workers: int | None = None
    sandbox: str = "auto"
    allow_missing: tuple[str, ...] = ()
    seconds: float = 6.0
    total_seconds: float = 60.0
    memory_mb: int = 1024

    __name__ = "code"  # the name under which TRL logs an instance; not a field, having no annotation

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers={self.workers} leaves nothing to run programs in; give 1 or more, or None.")
        object.__setattr__(self, "allow_missing", tuple(self.allow_missing))
        try:
            self.box.ready()
        except BoxError as error:
            raise ValueError(f"The reward 'code' has no sandbox it can trust: {error}") from None

    @property
    def box(self) -> Box:
        """The sandbox in which this configuration runs programs."""
        return Box(
            self.sandbox,
            self.allow_missing,
            seconds=self.seconds,
            total_seconds=self.total_seconds,
            memory_mb=self.memory_mb,
        )

    async def __call__(
        self,
        completions: Sequence[Completion],
        *,
        tests: Sequence[Any],
        entry_point: Sequence[str | None] | None = None,
        log_extra: Callable[[str, list[str]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """Grade a batch; the class says how."""
        graded = await in_thread(self.grade, completions, tests, entry_point)
        if log_metric is not None:
            log_metric("rewards/code/missing_layers", float(len(self.box.ready().missing)))
        statuses, fractions = [status for status, _ in graded], [fraction for _, fraction in graded]
        values = fractions if self.partial else None
        check = "`python -m rewards.box` shows what the sandbox says."
        return report(self.__name__, statuses, log_extra, log_metric, check, values)

    def check_golds(
        self,
        tests: Sequence[Any],
        entry_point: Sequence[str | None] | None = None,
        reference: Sequence[str | None] | None = None,
        **columns: Any,
    ) -> list[str]:
        """Whether the tests of each row can be read and, where there is a reference program, its status."""
        if reference is not None:
            programs = [f"```python\n{program}\n```" for program in reference]
            return [status for status, _ in self.grade(programs, tests, entry_point)]
        return ["no_gold" if suite is None else "ok" for suite in _read_all(tests, entry_point)]

    def grade(
        self, completions: Sequence[Completion], tests: Sequence[Any], entry_point: Sequence[str | None] | None = None
    ) -> list[tuple[str, float]]:
        """The status of each completion, a key of `rewards.shared.batch.REWARDS`, and the fraction of tests it passed.

        Without `partial` the first failure ends a program's tests, and the fraction is 0 or 1.
        """
        suites = _read_all(tests, entry_point)
        pairs = list(zip(completions, suites, strict=True))
        return in_threads(lambda pair: self._grade(*pair), pairs, self.workers or default_workers())

    def _grade(self, completion: Completion, tests: list[Test] | None) -> tuple[str, float]:
        if tests is None:
            return "no_gold", 0.0
        program = last_block(completion_text(completion))
        if program is None:
            return "unparsed", 0.0
        passed, fault = 0, ""
        try:
            outcomes = self.box.run(program, [test.request for test in tests])
            for test, outcome in zip(tests, outcomes, strict=True):
                verdict = test.verdict(outcome)
                passed += verdict == "ok"
                fault = fault or verdict.replace("ok", "")
                if fault and not self.partial:
                    outcomes.close()
                    return fault, 0.0
        except BoxError:
            logger.exception("The sandbox failed.")
            return "infra", 0.0
        return fault or "ok", passed / len(tests)


def last_block(text: str) -> str | None:
    """The last closed ```` ```python ```` block of a text, or None.

    >>> last_block("First:\\n```python\\nx = 1\\n```\\nno:\\n```python\\nx = 2\\n```\\n")
    'x = 2\\n'
    """
    text = text.replace("\r\n", "\n")
    block, end = None, 0  # one pattern for both fences would look for the end of the text from every opening one
    while (opening := _OPENING.search(text, end)) and (closing := _CLOSING.search(text, opening.end())):
        block, end = text[opening.end() : closing.start()], closing.end()
    return block


@dataclass(frozen=True)
class Test:
    """One test: what the box is asked, and whether what it answers is right."""

    request: dict[str, Any]
    holds: Callable[[bytes], bool]

    def verdict(self, outcome: Outcome) -> str:
        """A key of `rewards.shared.batch.REWARDS`."""
        if outcome.end == "ok":
            return "ok" if self.holds(outcome.data) else "wrong"
        return {"timeout": "timeout"}.get(outcome.end, "died")


def read_tests(column: Any, entry_point: str | None = None) -> list[Test]:
    """The tests of one row, in any form that `Code` takes; `entry_point` names what assert statements test.

    Raises:
        ValueError: They cannot be read, are none, or hold an assertion that cannot be lifted.
    """
    if isinstance(column, str) and column.lstrip().startswith("{"):
        try:
            column = json.loads(column)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"tests are no valid JSON: {error}") from None
    if isinstance(column, list) and all(isinstance(line, str) for line in column):
        column = "\n".join(column)
    if isinstance(column, str) and column.strip():
        return [_assert_test(assertion) for assertion in assertions.lift(column, entry_point)]
    cases = column.get("cases") if isinstance(column, dict) else None
    if not isinstance(cases, list) or not cases or not all(isinstance(case, dict) for case in cases):
        raise ValueError(f"tests={str(column)[:80]!r} are neither assert statements nor an object with cases")
    reader = {"stdin": _stdin_test, "call": _call_test}.get(str(column.get("type")))
    if reader is None:
        raise ValueError(f"tests of type {column.get('type')!r}; write 'stdin' or 'call'")
    return [reader(case, column) for case in cases]


def _stdin_test(case: dict[str, Any], suite: dict[str, Any]) -> Test:
    if not isinstance(case.get("input"), str) or not isinstance(case.get("output"), str):
        raise ValueError(f"a stdin case needs 'input' and 'output', both text: {str(case)[:80]}")
    expected = _lines(case["output"])
    return Test({"stdin": case["input"]}, lambda data: _lines(data.decode("utf-8", "replace")) == expected)


def _lines(text: str) -> list[str]:
    return "\n".join(line.rstrip() for line in text.split("\n")).rstrip("\n").split("\n")


def _call_test(case: dict[str, Any], suite: dict[str, Any]) -> Test:
    name, tolerance = suite.get("fn_name"), suite.get("tol")
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"call tests need fn_name, the name of a function: {name!r}")
    if tolerance is not None and (type(tolerance) not in (int, float) or not 0 <= tolerance < math.inf):
        raise ValueError(f"tol is a number from 0, or null: {tolerance!r}")
    if not isinstance(case.get("args"), list) or "expected" not in case:
        raise ValueError(f"a call case needs 'args', a list, and 'expected': {str(case)[:80]}")
    try:
        request = _calls([assertions.Call(name, tuple(case["args"]))])
        expected = plain.decode(plain.encode(case["expected"]))
    except TypeError as error:
        raise ValueError(f"{error}: {str(case)[:80]}") from None

    def holds(data: bytes) -> bool:
        values = _returned(data)
        return len(values) == 1 and _same(values[0], expected, tolerance)

    return Test(request, holds)


def _assert_test(assertion: assertions.Assertion) -> Test:
    return Test(_calls(assertion.calls), lambda data: assertion.holds(_returned(data)))


def _returned(data: bytes) -> list[Any]:
    """What the calls of a test returned; empty where the program has written something else."""
    try:
        values = plain.decode(data)
    except ValueError:
        return []
    return values if isinstance(values, list) else []


def _calls(calls: Sequence[assertions.Call]) -> dict[str, Any]:
    return {
        "calls": [
            {"function": call.function, "args": plain.encode(call.args), "kwargs": plain.encode(call.kwargs)}
            for call in calls
        ]
    }


def _same(value: Any, expected: Any, tolerance: float | None) -> bool:
    if isinstance(expected, (list, tuple)) and isinstance(value, (list, tuple)):
        pairs = zip(value, expected, strict=False)
        return len(value) == len(expected) and all(_same(a, b, tolerance) for a, b in pairs)
    if isinstance(expected, dict) and isinstance(value, dict):
        return value.keys() == expected.keys() and all(_same(value[key], expected[key], tolerance) for key in expected)
    if tolerance is not None and {type(value), type(expected)} <= {int, float}:
        with contextlib.suppress(OverflowError):  # integers beyond the floats
            return math.isclose(value, expected, rel_tol=tolerance, abs_tol=tolerance)
    return value == expected


def _read_all(tests: Sequence[Any], entry_point: Sequence[str | None] | None) -> list[list[Test] | None]:
    """The tests of each row, or None where they cannot be read; equal ones are read once."""
    read: dict[tuple[str, str | None], list[Test] | None] = {}
    suites = []
    for column, name in zip(tests, entry_point or [None] * len(tests), strict=True):
        key = repr(column), name
        if key not in read:
            try:
                read[key] = read_tests(column, name)
            except ValueError as error:
                logger.warning("These tests are left out: %s.", error)
                read[key] = None
        suites.append(read[key])
    return suites
