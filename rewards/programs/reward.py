"""The reward `code`: whether a program passes its tests. The program runs in a sandbox and is judged outside it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ..shared.batch import Completion, completion_text, report
from ..shared.concurrency import default_workers, map_in_threads, run_in_thread
from .blocks import find_program
from .prelude import PRELUDE, prelude_names, uses_prelude
from .sandbox.box import Box, BoxError
from .suites.scripts import ScriptTest
from .test_cases import ProgramTest, check_tolerance, describe_tests, read_all_tests, run_tests

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

_PAUSE_SECONDS = 1  # before the second attempt, if the sandbox failed


@dataclass(frozen=True)
class Code:
    """1.0 if the program of the completion passes all tests in a sandbox.

    The program is the last closed block that defines what the tests call, or the last closed block if the tests call
    nothing. Its fence may be indented, may be longer, and may name Python or no language (`blocks.find_program`).

    The sandbox consists of layers of protection. When the reward is created, canaries test every layer. A canary is a
    harmless program that tries to escape; `python -m rewards.box` prints the results. A missing layer raises an error
    that names the layer. A program can import only the standard library, and each test runs in its own process. A
    program may recurse, use threads, print 4 MiB and write to `/tmp` (16 MiB, 10,000 files), but it cannot start other
    processes.

    Args:
        partial: The reward is the fraction of tests passed, instead of 1.0 for all tests and 0.0 otherwise.
        workers: Number of programs that run at the same time. None: the CPUs of this process minus one.
        sandbox: `"auto"`, `"bubblewrap"`, `"sandlock"` or `"e2b"`, as in `rewards.programs.sandbox.box.Box`.
        allow_missing: Layers (keys of `sandbox.canaries.LAYERS`) whose absence raises no error.
        seconds: CPU seconds per test. The wall-clock limit is three times as long.
        total_seconds: Wall-clock seconds for all tests of one program.
        memory_mb: MiB of address space per test.
        tol: The tolerance of suites with cases that give no `tol`, such as those of APPS and LiveCodeBench, whose own
            graders compare numbers with a tolerance.
        prelude: Python source. Programs may use its names without defining or importing them. Names of the program and
            builtin names come first, so the prelude replaces none of them. By default the usual names of exercises,
            for example `List`, `Counter`, `heappush` and `math`. Empty for none.

    Columns read:
        tests: One of
            - `{"type": "stdin", "cases": [{"input": text, "output": text}], "tol": 1e-6}`: the output is compared
              line by line. White space at line ends and blank lines at the end are ignored. If `tol` is given, the
              output is compared word by word instead, and numbers may differ by `tol` (relative or absolute; only
              absolute if an integer is expected);
            - `{"type": "call", "fn_name": name, "cases": [{"args": [...], "expected": value}], "tol": 1e-6}`: calls a
              function, or a method of the class `Solution`. Results are compared as in Python, except that lists equal
              tuples, and numbers may differ by `tol` (as above) if it is given;
            - assert statements as text or as a list of texts, as supported by `assertions.parse_assertions`;
            - other Python code: test functions and classes as for pytest or unittest that import from `solution`, or a
              script or a `check(candidate)` with loops and helpers. It runs in a sandbox of its own, which has the
              standard library and small stand-ins for pytest and numpy. Only calls and their results pass between the
              two sandboxes: plain data, named tuples, the types of `collections`, fractions, decimals, dates, and
              instances of classes of the suite that only hold data. An instance of a class of the program equals only
              itself, unless the class extends a builtin one;
            - the forms of `suites.formats`: APPS and TACO (`inputs`, `outputs`, `fn_name`), LiveCodeBench (a list of
              cases with `testtype`), open-r1 (`test_cases`), code-r1 (`functional`, `pytest`). An object with cases
              may also have `tol`. Recipes and `python -m rewards.check` turn these forms into one of the forms above,
              with the name of the function from the column `metadata`. A case of a call then has the key `or`, another
              right value, if the set may wrap each result in a list.
            Objects and lists may also be text, as JSON or Python write it. None and blank text mean that there are no
            tests.
        entry_point: Optional. The name of the function that the tests call. Needed for suites that define
            `def check(candidate)` but do not call `check`, as in HumanEval, and for functions with the name of a
            builtin.

    Returns:
        Per completion: 1.0 (`ok`), 0.0 or with `partial` a fraction (`wrong`, `unparsed`, `timeout`, `died`), or None
        (`no_gold`: the tests cannot be read; `infra`).

    Raises:
        ValueError: An option is out of range, no sandbox starts, a layer is missing, or the prelude fails.
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
    tol: float | None = None
    prelude: str = PRELUDE

    __name__ = "code"  # TRL logs an instance under this name; not a dataclass field, as it has no annotation

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers={self.workers} leaves nothing to run programs in; give 1 or more, or None.")
        check_tolerance(self.tol)
        object.__setattr__(self, "allow_missing", tuple(self.allow_missing))
        try:
            self.box.ready()
        except BoxError as error:
            raise ValueError(f"The reward 'code' has no sandbox that is safe to use: {error}") from None
        try:
            prelude_names(self.prelude, self.box)
        except BoxError as error:
            raise ValueError(
                f"prelude={self.prelude[:60]!r} fails, so no program could run: {error}. Correct it, or write an empty "
                "text for none."
            ) from None

    @property
    def box(self) -> Box:
        """The sandbox that runs the programs of this configuration."""
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
        """Grade a batch, as described in the class."""
        graded = await run_in_thread(self.grade, completions, tests, entry_point)
        if log_metric is not None:
            log_metric("rewards/code/missing_layers", float(len(self.box.ready().missing)))
        statuses, fractions = [status for status, _ in graded], [fraction for _, fraction in graded]
        values = fractions if self.partial else None
        hint = "Run `python -m rewards.box` to check the sandbox."
        return report(self.__name__, statuses, log_extra, log_metric, hint, values)

    def check_references(
        self,
        tests: Sequence[Any],
        entry_point: Sequence[str | None] | None = None,
        reference: Sequence[str | None] | None = None,
        **columns: Any,
    ) -> list[str]:
        """The status of each row's reference program, or whether the row's tests can be read.

        Args:
            tests: The column `tests`.
            entry_point: The column `entry_point`, if there is one.
            reference: A correct program per row, if available. It is run on the row's tests.

        Returns:
            One key of `rewards.shared.batch.REWARDS` per row. Without `reference`: `ok`, or `no_gold` if the tests
            cannot be read.
        """
        if reference is not None:
            programs = [f"```python\n{program}\n```" for program in reference]
            return [status for status, _ in self.grade(programs, tests, entry_point)]
        found = self._read(tests, entry_point)
        return ["no_gold" if cases is None else "ok" for cases in found]

    def read_references(
        self, tests: Sequence[Any], entry_point: Sequence[str | None] | None = None, **columns: Any
    ) -> list[str]:
        """What each row's tests are read as, for example `stdin, 1 case` or `call f, 2 cases`."""
        found = self._read(tests, entry_point)
        return ["tests that cannot be read" if cases is None else describe_tests(cases) for cases in found]

    def grade(
        self, completions: Sequence[Completion], tests: Sequence[Any], entry_point: Sequence[str | None] | None = None
    ) -> list[tuple[str, float]]:
        """Grade a batch without a report.

        Returns:
            For each completion its status, a key of `rewards.shared.batch.REWARDS`, and the fraction of tests passed.
            Without `partial`, a program's tests end at the first failure, and the fraction is 0 or 1.
        """
        workers = self.workers or default_workers()
        try:
            found = _tried_twice(lambda: self._read(tests, entry_point))
        except BoxError:
            logger.exception("The sandbox failed.")
            return [("infra", 0.0)] * len(completions)
        pairs = list(zip(completions, found, strict=True))
        return map_in_threads(lambda pair: self._grade(*pair), pairs, workers)

    def _read(
        self, tests: Sequence[Any], entry_point: Sequence[str | None] | None
    ) -> list[list[ProgramTest] | list[ScriptTest] | None]:
        return read_all_tests(tests, entry_point, self.box, self.workers or default_workers(), self.tol)

    def _grade(self, completion: Completion, tests: list[ProgramTest] | list[ScriptTest] | None) -> tuple[str, float]:
        if tests is None:
            return "no_gold", 0.0
        functions = {name for test in tests for name in test.functions}
        program = find_program(completion_text(completion), functions)
        if program is None:
            return "unparsed", 0.0
        try:
            return _tried_twice(lambda: self._run(program, tests))
        except BoxError:
            logger.exception("The sandbox failed.")
            return "infra", 0.0

    def _run(self, program: str, tests: list[ProgramTest] | list[ScriptTest]) -> tuple[str, float]:
        passed, first_failure = 0, None
        needed = uses_prelude(program, prelude_names(self.prelude, self.box))
        statuses = run_tests(self.box, program, tests, self.prelude if needed else "")
        for status in statuses:
            if status == "ok":
                passed += 1
                continue
            first_failure = first_failure or status
            if not self.partial:
                statuses.close()
                return first_failure, 0.0
        return first_failure or "ok", passed / len(tests)


def _tried_twice(work: Callable[[], Result]) -> Result:
    """The result of `work()`. A busy machine may fail to start a sandbox once, which must not end a run."""
    try:
        return work()
    except BoxError as error:
        logger.warning("The sandbox failed and is started again: %s", error)
        time.sleep(_PAUSE_SECONDS)
        return work()
