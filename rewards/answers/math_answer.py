r"""The reward `math`: mathematical answers, compared by math-verify in worker processes that can be killed.

Completions are hostile input: `\boxed{9^{9^{9^9}}}` keeps sympy busy forever, and C code may ignore a timer. Each
completion is therefore graded in a worker of `shared.workers`. A timer stops most computations after `SOFT_LIMIT`
seconds of CPU time. If a completion takes more than `hard_limit` seconds, its worker is killed. Workers return only
text.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from sympy import Rational, pi

from ..shared.batch import Completion, completion_text, reference_text, report
from ..shared.boxed import MAX_ANSWER, boxed, has_box, last_boxed
from ..shared.concurrency import run_in_thread
from ..shared.references import extraction_hint
from ..shared.workers import Workers
from .equality import Value, equal, is_rounding, parse_latex, split
from .normalise import (
    are_opposite,
    is_closed_at_infinity,
    letters_in_order,
    normalise,
    read_choice,
    read_conditions,
    read_decimal_comma,
    read_letters,
    read_modulus,
    undecorated,
    with_parameter,
    with_separators,
)
from .plain_numbers import other_spellings, parse_number
from .units import with_common_unit

SOFT_LIMIT = 1.0  # seconds of CPU time for each of three steps: read the reference answer, read the answer, compare

_NAMED = re.compile(r"\banswer\b", re.IGNORECASE)  # the completion names its answer, but outside a box
_EMPTY_OR_NAME = re.compile(
    r"[\s$=]*(?:\\(?:alpha|beta|gamma|theta|phi|lambda|mu|omega|rho|sigma)(?![A-Za-z])|(?:m ?)?\\angle ?[A-Z]{1,3}"
    r"|[A-Z]{2}|[A-Za-z])?\s*(?:_\s*(?:\w|\{[^{}]*\})|\([A-Za-z]\))?\s*"
)
_NAME = re.compile(r"(?=.*[A-Za-z])(?!.*\\[lgn]e(?![A-Za-z]))[^<>]*")  # of what an answer gives the value of
_ABOUT_IN_WORDS = r"(?:\\text\{\s*)?(?:or )?\b(?:approximately|about|approx\.?)\s*\}?(?=\s*(?:[-\d$\\]|\.\d))"
_ABOUT = rf"(?:\\approx(?![A-Za-z])|≈|{_ABOUT_IN_WORDS})"
_APPROXIMATELY = re.compile(_ABOUT)
_DEGREES = re.compile(r"\\circ|\bdegrees?\b")
_ROUNDED_IN_PARENTHESES = re.compile(  # 3/8 (or 0.375)
    rf"(?:\\ |\\text\{{|\s)*\((?:{_ABOUT}|=|(?:\\text\{{\s*)?or\b\s*\}}?)\s*"
    r"([-\d.,]+(?:\\?%)?)\s*(?:\\text\{\)\}|\)\s*\}?)$"
)
_OPERATION = re.compile(
    r"\\(?:i*int|oint|sum|prod|lim|gcd|det|max|min)(?![A-Za-z])|(?<![A-Za-z])(?:gcd|lcm)(?![A-Za-z])"
    r"|\\begin\{vmatrix\}|\\frac\{ ?d ?\}\{ ?d ?[a-z] ?\}"
)
_REMAINDER = re.compile(r"(?:(?<![\w.}^])(\d+)|\S) ?\\mod(?![A-Za-z]) ?(\d+)")
_POINT_NAME = re.compile(r"(?:^|(?<=[,;$]))\s*[A-Z]\s*(?=(?:\\left)?\s*\([^()]*,)")  # C(5, 3)
_SEPARATOR = re.compile(r"\s*(?:[,;]|,?\s*(?:and|or))\s*")  # between two formulas of a list
_FORMULA = re.compile(r"(?<!\\)(?:\$\$(.+?)\$\$|\$(.+?)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\])", re.DOTALL)  # not \\$


@dataclass(frozen=True)
class Math:
    r"""1.0 if the completion's boxed answer equals the reference answer as mathematics.

    Equal instances share one pool of workers per process. `rewards.shared.workers.Workers` describes what a script that
    uses workers needs.

    Args:
        workers: Number of worker processes. None: the CPUs of this process minus one.
        hard_limit: Seconds for one completion before its worker is killed. Must be more than `3 * SOFT_LIMIT`.
        memory_mb: MiB that each worker may use for grading, in addition to its imports (Linux only).

    Columns read:
        solution: The reference answer: a number, or LaTeX that is bare (`3\pi`), delimited (`$3\pi$`) or in a
            `\boxed{}`. None, NaN and blank text mean that there is none.

    Returns:
        Per completion: 1.0 (`ok`), 0.0 (`wrong`, `unparsed`, `timeout`, `died`) or None (`no_gold`, `infra`).

    Raises:
        ValueError: `solution` and `completions` differ in length, or an option is out of range.
        RuntimeError: More than 1 % of a batch is `infra`: the workers cannot start, or they break.

    The answer is the content of the last `\boxed{}`, or of the last boxes if nothing but a comma, a semicolon, `and` or
    `or` stands between them. A last box that does not close is no answer. Text outside a box is never the answer; a
    completion that has no box but the word "answer" is `wrong`, other completions without a box are `unparsed`.

    `rewards.answers.normalise` rewrites both answers, and `rewards.answers.equality` compares them. Numbers are exact:
    0.333333 does not equal 1/3, and 3.14 does not equal pi. Two numbers that are no fractions are equal if they agree
    to 1,000 digits. An interval equals the inequality with the same solutions. A multiple-choice letter equals the same
    letter with its text. In `\frac13 \approx 0.33` both numbers are answers, if the second is a rounding of the first.
    Either number equals such a reference answer.
    An equation of different numbers, such as 9 = 8, is wrong. An answer that repeats the problem is wrong: an integral,
    sum, product, limit, derivative, determinant, remainder, gcd, lcm, maximum or minimum without its result, and an
    equation or inequality that is still to be solved, such as 2x + 1 > 7 for x > 3. It counts if the reference answer
    has the same form.

    Known limits (remove reference answers from the data set for which they matter):
        - A percentage equals the number without the sign, and the fraction: 9% equals 9 and 0.09.
        - Units of different kinds, and a unit next to a number without one, are ignored, as are words after a number:
          5 cm equals 5 and 5 kg, but not 5 m. One letter without `\text` is a variable: 5m is not 5.
        - A number base is ignored next to a number without one: 52_8 equals 52, but not 52_9.
        - The point (1, 2) equals the interval from 1 to 2, and the list 1, 2.
        - Only the last side of an equality is compared, unless the reference answer is an equation as well.
        - `\log` has base 10. `i` is the imaginary unit, except as an index. Small and capital letters are equal.
        - A decimal comma is read only where it starts no list: in 0{,}5 and 0,05. In the answer 2,5 it is read if the
          reference answer is a decimal or a fraction.
        - 3:10 is a time next to another time, and a ratio next to a number. 9 p.m. equals 9.
        - Primes after a number are ignored.
        - If a reference answer hangs a worker until it is killed, the completion has the status `timeout`.

    The reward is asynchronous, so that TRL can run it at the same time as other rewards. In a script:

    >>> import asyncio
    >>> asyncio.run(Math()([r"So it is \boxed{0.5}.", r"\boxed{\frac13}", "0.5"], solution=[r"\frac12"] * 3))
    [1.0, 0.0, 0.0]
    """

    workers: int | None = None
    hard_limit: float = 8.0
    memory_mb: int = 1024

    __name__ = "math"  # TRL logs an instance under this name; not a dataclass field, as it has no annotation

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers={self.workers} leaves no process to grade in; give 1 or more, or None.")
        if self.hard_limit <= 3 * SOFT_LIMIT:
            raise ValueError(
                f"hard_limit={self.hard_limit} would kill workers before the soft limit can stop them. Reading the "
                f"reference answer, reading the answer and comparing them may take {SOFT_LIMIT:g} second each. Give "
                f"more than {3 * SOFT_LIMIT:g} seconds."
            )
        if self.memory_mb < 1:
            raise ValueError(f"memory_mb={self.memory_mb} leaves no memory to grade in; the default is 1024.")

    async def __call__(
        self,
        completions: Sequence[Completion],
        *,
        solution: Sequence[Any],
        log_extra: Callable[[str, list[str]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """Grade a batch, as described in the class."""
        statuses = await run_in_thread(self.grade, completions, solution)
        return report(self.__name__, statuses, log_extra, log_metric, self.failure_hint)

    @property
    def failure_hint(self) -> str:
        """What to check if the workers fail. It is added to errors."""
        return self._workers.failure_hint

    def grade(self, completions: Sequence[Completion], solution: Sequence[Any]) -> list[str]:
        r"""Grade a batch without a report.

        Returns:
            The status of each completion, a key of `rewards.shared.batch.REWARDS`.

        >>> Math().grade([r"\boxed{4}", "4", r"\boxed{4}"], [4, 4, None])
        ['ok', 'unparsed', 'no_gold']
        """
        references = list(map(reference_text, solution))
        texts = map(completion_text, completions)
        return self._run(_grade, list(zip(texts, references, strict=True)), references)

    def check_references(self, solution: Sequence[Any], **columns: Any) -> list[str]:
        r"""The status of each reference answer, graded as an answer to itself.

        It is graded in its own spelling, in bold with a final dot, and, if it is a plain number, as a fraction and as a
        decimal. The status is the first one that is not `ok`. A solution that ends with `#### answer` gets a hint.

        >>> Math().check_references([r"\frac12", "", "?"])
        ['ok', 'no_gold', 'no_gold']
        """
        references = list(map(reference_text, solution))
        statuses = self._run(_check, [(reference,) for reference in references], references)
        return [
            (status == "no_gold" and extraction_hint(reference)) or status
            for reference, status in zip(solution, statuses, strict=True)
        ]

    def read_references(self, solution: Sequence[Any], **columns: Any) -> list[str]:
        r"""What the reward understands each reference answer to be, as sympy prints it, or the status `no_gold`.

        >>> Math().read_references(["6.02e3", r"\frac{2}{4}\text{ cm}", "x<1", "?"])
        ['6020', '1/2', 'x < 1', 'no_gold']
        """
        references = list(map(reference_text, solution))
        return self._run(_read, [(reference,) for reference in references], references)

    def _run(
        self, work: Callable[..., str], arguments: Sequence[tuple[Any, ...]], references: Sequence[str]
    ) -> list[str]:
        """The result of `work` for each row in a worker; `no_gold` for a row without a reference answer."""
        rows = [row for row, reference in enumerate(references) if reference]
        results = ["no_gold"] * len(references)
        for row, result in zip(rows, self._workers.run(work, [arguments[row] for row in rows]), strict=True):
            results[row] = result
        return results

    def close(self) -> None:
        """Stop the workers of this configuration. A later batch starts new ones."""
        self._workers.close()

    @property
    def _workers(self) -> Workers:
        return Workers(self.workers, self.hard_limit, self.memory_mb, _prepare)


def reference_answer(reference: str) -> str | None:
    r"""The answer that a reference text gives: its last boxes, or its last formulas between dollars, or all of it.

    None: a box is not closed, or the text is a solution that ends with `#### answer`.

    >>> reference_answer(r"So $n = 2$ and \boxed{(2, 3)}."), reference_answer("As $n > 0$, it is $2$ or $3$.")
    ('(2, 3)', '2, 3')
    """
    if has_box(reference):
        return last_boxed(reference)
    if "####" in reference:
        return None
    formulas = list(_FORMULA.finditer(reference))
    if not formulas:
        return reference
    first = len(formulas) - 1
    while first and _SEPARATOR.fullmatch(reference, formulas[first - 1].end(), formulas[first].start()):
        first -= 1
    return ", ".join(next(filter(None, match.groups())) for match in formulas[first:])


# The functions below run inside a worker.


def _prepare() -> None:
    """Load the modules that sympy loads at first use. Grading one answer also checks that this worker works."""
    if _grade(r"\boxed{\frac12x(x+1)}", "0.5x^2+0.5x", soft_limit=60) != "ok":
        raise RuntimeError("In a new worker, math-verify does not recognise that x(x+1)/2 equals 0.5x^2+0.5x.")


def _grade(text: str, reference: str, equal_text_is_correct: bool = True, soft_limit: float = SOFT_LIMIT) -> str:
    expected, answer = reference_answer(reference), last_boxed(text)
    if not expected:
        return "no_gold"
    if answer and answer == expected and equal_text_is_correct:
        return "ok"
    if answer is None and r"\boxed" not in text and _NAMED.search(text):
        return "wrong"
    if not answer or len(answer) > MAX_ANSWER:
        return "unparsed"
    numbers = parse_number(expected), parse_number(answer)
    if None not in numbers:
        return "ok" if numbers[0] == numbers[1] else "wrong"
    status_if_raised = "no_gold"
    try:
        letters = read_letters(expected), read_letters(answer)
        if letters[0] and letters[1]:
            if letters[0][1] != letters[1][1]:
                return "ok" if letters[0][0] == letters[1][0] else "wrong"
            order = letters_in_order(expected)
            if not letters[0][1] and order != "".join(sorted(order)):  # the order is the answer
                return "ok" if letters_in_order(answer) == order else "wrong"
        choice, chosen = read_choice(expected), read_choice(answer)
        if choice and choice[0].isupper():
            if chosen:
                return "ok" if choice[0] == chosen[0].upper() else "wrong"
            expected = choice[1] or choice[0]
        elif chosen:
            answer = chosen[1] or chosen[0]
        expected, answer = with_separators(expected, answer), with_separators(answer, expected)
        expected, answer = with_common_unit(expected, answer)
        if expected.lstrip("$ ").startswith("("):
            answer = _POINT_NAME.sub("", answer)
        if are_opposite(expected, answer):
            return "wrong"
        moduli = read_modulus(expected), read_modulus(answer)
        if None not in moduli and moduli[0] != moduli[1]:
            return "wrong"
        expected_values = _within(soft_limit, _values, expected)
        status_if_raised = "unparsed"
        if _within(soft_limit, _have_different_conditions, expected, answer):
            return "wrong"
        if _within(soft_limit, is_closed_at_infinity, answer) and not is_closed_at_infinity(expected):
            return "wrong"
        if isinstance(expected_values[0], Rational) and not expected_values[0].is_integer:
            answer = read_decimal_comma(answer)
        answer = _within(soft_limit, with_parameter, answer, expected)
        if _within(soft_limit, _has_operation, answer) and not _has_operation(expected):
            return "wrong"  # the parser would do the work
        pairs = list(product(expected_values, _within(soft_limit, _values, answer, True)))
        status_if_raised = "wrong"
        return "ok" if any(_within(soft_limit, equal, *pair) for pair in pairs) else "wrong"
    except _TooSlowError:
        return "no_gold" if status_if_raised == "no_gold" else "timeout"
    except MemoryError:
        os._exit(1)  # a worker without free memory could also fail on its next completion
    except Exception:
        return status_if_raised


def _check(reference: str) -> str:
    """The first status that is not `ok`, of the reference answer graded in several spellings."""
    if _read(reference) == "no_gold":
        return "no_gold"
    answer = reference_answer(reference) or ""
    spellings = [answer, rf"$\displaystyle \mathbf{{{answer}}}$.", *other_spellings(answer)]
    statuses = (_grade(boxed(spelling), reference, equal_text_is_correct=False) for spelling in spellings)
    return next((status for status in statuses if status != "ok"), "ok")


def _read(reference: str) -> str:
    """What a reference answer is understood to be; `no_gold` if it cannot be read."""
    answer = reference_answer(reference)
    if not answer:
        return "no_gold"
    choice = read_choice(answer)
    if choice and choice[0].isupper():
        return choice[0]
    try:
        values = _within(SOFT_LIMIT, _values, answer)
    except (_TooSlowError, Exception):
        return "no_gold"
    try:
        return " or ".join(map(str, values))
    except ValueError:  # Python writes no integer of more than 4300 digits
        return normalise(answer)


def _values(answer: str, check_rounding: bool = False) -> list[Value]:
    r"""The value of an answer. Of an answer such as `\frac13 \approx 0.33`, the value and its rounding.

    Args:
        answer: The answer.
        check_rounding: Raise `ValueError` if a number is not the rounding of the first one.
    """
    parts = [answer]
    if _APPROXIMATELY.search(rounded := _ROUNDED_IN_PARENTHESES.sub(r"\\approx \1", answer)):
        parts = [part for part in _APPROXIMATELY.split(undecorated(rounded)) if not _EMPTY_OR_NAME.fullmatch(part)]
    first, *others = map(_value, parts or [answer])
    for part, value in zip(parts[1:], others, strict=True):
        in_degrees = _DEGREES.search(part) and is_rounding(first, value, 180 / pi)
        if check_rounding and not in_degrees and not is_rounding(first, value):
            raise ValueError(f"{answer!r} has a number that is not the rounding of the first one.")
    return [first, *others]


def _value(answer: str) -> Value:
    r"""The value of an answer. If the name before its only `=` cannot be read, as in `\dim V = 3`, that of the rest."""
    latex = normalise(answer)
    *names, last_side = split(latex, "=")
    if len(names) == 1 and _OPERATION.search(names[0]):  # the gcd of two letters would be 1
        return parse_latex(last_side)
    try:
        return parse_latex(latex)
    except Exception:
        name, equals, value = latex.partition("=")
        if not equals or not _NAME.fullmatch(name) or "=" in value:
            raise
        return parse_latex(value)


def _have_different_conditions(expected: str, answer: str) -> bool:
    """Whether both answers have conditions, such as `y = 2x, x > 0`, and these differ. Excluded values do not count."""
    first, second = read_conditions(expected), read_conditions(answer)
    if first is None or second is None or r"\ne" in first + second:
        return False
    return not equal(_value(first), _value(second))


def _has_operation(answer: str) -> bool:
    r"""Whether an answer leaves an operation to the reader, such as `\int_0^1 x dx`, `\gcd(12, 18)` or `2^9 \mod 7`."""
    last_side = split(normalise(answer), "=")[-1]
    is_remainder = (match[1] is None or int(match[1]) >= int(match[2]) for match in _REMAINDER.finditer(last_side))
    return _OPERATION.search(last_side) is not None or any(is_remainder)


class _TooSlowError(BaseException):  # sympy catches every Exception in many places
    pass


def _within(seconds: float, work: Callable[..., Any], *args: Any) -> Any:
    """Call `work(*args)`. Raises `_TooSlowError` after `seconds` of CPU time, which other processes do not use up."""

    def stop(*_: Any) -> None:
        raise _TooSlowError

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return work(*args)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
