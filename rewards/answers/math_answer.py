r"""Mathematical answers, compared by math-verify in worker processes that can be killed.

A completion is hostile input: `\boxed{9^{9^{9^9}}}` holds sympy for ever, and C code need not hear an alarm. So each
one is graded in a worker of `shared.workers`: math-verify's own alarm stops what listens after `SOFT_LIMIT`, and the
worker is killed after `hard_limit`. Only a status leaves it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify
from math_verify.errors import TimeoutException

from ..shared.batch import Completion, completion_text, gold_text, in_thread, report
from ..shared.workers import Workers

SOFT_LIMIT = 1  # seconds for each of: read the gold, read the answer, compare. An int: a float limit parses nothing
MAX_BOX = 400  # characters of an answer; a longer box is refused unread

_GOLD = [LatexExtractionConfig(boxed_match_priority=0)]
_ANSWER = [LatexExtractionConfig(boxed_match_priority=0, try_extract_without_anchor=False)]
_DELIMITED = re.compile(r"(?<!\\)(?:\$|\\\(|\\\[|\\boxed)")  # an escaped \$ is a currency
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)


@dataclass(frozen=True)
class Math:
    r"""1.0 when the completion's boxed answer equals the gold as mathematics.

    Instances are their configuration: equal ones share one pool of workers in a process, of which
    `rewards.shared.workers.Workers` says what a script has to heed.

    Args:
        workers: Worker processes; by default the processors of this process but one.
        hard_limit: Seconds for one completion before its worker is killed; more than `3 * SOFT_LIMIT`.
        memory_mb: MiB that grading may take in each worker beyond what its imports take (Linux only).

    Columns read:
        solution: The gold: a number, or LaTeX, bare (`3\pi`), delimited (`$3\pi$`), or with a `\boxed{}`. None, NaN
            or blank text is no gold.

    Returns:
        Per completion: 1.0 (`ok`), 0.0 (`wrong`, `unparsed`, `timeout`, `died`) or None (`no_gold`, `infra`).

    Raises:
        ValueError: `solution` and `completions` differ in length, or an option is out of its range.
        RuntimeError: More than 1 % of a batch is `infra`: the workers cannot start, or break.

    Known limits, of math-verify; filter golds by them:
        - Numbers are compared to 6 decimals, absolute.
        - A percentage equals its number: 9 and 9%.
        - Units and number bases are dropped: 52_8 equals 52.
        - (1, 2) equals {1, 2}.
        - Of an equality, the last side counts.
        - Two boxes close together merge into a set.
        - "The final answer is $4$. I hope it is correct" ties with a box.
        - A gold that hangs a worker beyond the alarm is charged to the completion, as `timeout`.

    Asynchronous, so that TRL grades with it and with other rewards at the same time; in a script of your own:

    >>> import asyncio
    >>> asyncio.run(Math()([r"So it is \boxed{0.5}.", r"\boxed{\frac13}", "0.5"], solution=[r"\frac12"] * 3))
    [1.0, 0.0, 0.0]
    """

    workers: int | None = None
    hard_limit: float = 8.0
    memory_mb: int = 1024

    __name__ = "math"  # the name under which TRL logs an instance; not a field, having no annotation

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers={self.workers} leaves no process to grade in; give 1 or more, or None.")
        if self.hard_limit <= 3 * SOFT_LIMIT:
            raise ValueError(
                f"hard_limit={self.hard_limit} kills workers that the soft limit would have stopped, at a second each "
                f"for gold, answer and comparison; give more than {3 * SOFT_LIMIT} seconds."
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
        """Grade a batch; the class says how."""
        statuses = await in_thread(self.grade, completions, solution)
        return report(self.__name__, statuses, log_extra, log_metric, self.check)

    @property
    def check(self) -> str:
        """What to look at when the workers fail; ends the error."""
        return self._workers.check

    def grade(self, completions: Sequence[Completion], solution: Sequence[Any]) -> list[str]:
        r"""The status of each completion, a key of `rewards.shared.batch.REWARDS`; for checks that need the reason.

        >>> Math().grade([r"\boxed{4}", "4", r"\boxed{4}"], [4, 4, None])
        ['ok', 'unparsed', 'no_gold']
        """
        return self._grade_all(
            [(completion_text(text), gold_text(gold)) for text, gold in zip(completions, solution, strict=True)]
        )

    def check_golds(self, solution: Sequence[Any], **columns: Any) -> list[str]:
        r"""The status of each gold as an answer to itself, both read by math-verify: `ok`, or why it cannot be a gold.

        >>> Math().check_golds([r"\frac12", "", "?"])
        ['ok', 'no_gold', 'no_gold']
        """
        golds = [gold_text(gold) for gold in solution]
        return self._grade_all([(_as_answer(gold), gold) for gold in golds], equal_boxes_are_right=False)

    def _grade_all(self, pairs: Sequence[tuple[str, str]], equal_boxes_are_right: bool = True) -> list[str]:
        """The statuses of pairs of text and gold."""
        rows = [row for row, (_, gold) in enumerate(pairs) if gold]
        graded = self._workers.run(_grade, [(*pairs[row], equal_boxes_are_right) for row in rows])
        statuses = ["no_gold"] * len(pairs)
        for row, status in zip(rows, graded, strict=True):
            statuses[row] = status
        return statuses

    def close(self) -> None:
        """End the workers of this configuration; a later batch starts new ones."""
        self._workers.close()

    @property
    def _workers(self) -> Workers:
        return Workers(self.workers, self.hard_limit, self.memory_mb, _prepare)


# Below: what runs inside a worker.


def _prepare() -> None:
    """Load what sympy loads at first use, which also proves that this worker can grade."""
    if _grade(r"\boxed{\frac12x(x+1)}", "0.5x^2+0.5x", soft_limit=60) != "ok":
        raise RuntimeError("math-verify does not find x(x+1)/2 equal to 0.5x^2+0.5x in a new worker.")


def _grade(text: str, gold: str, equal_boxes_are_right: bool = True, soft_limit: int = SOFT_LIMIT) -> str:
    if not _DELIMITED.search(gold):
        gold = _boxed(gold)
    box = last_box(text)
    if box and equal_boxes_are_right and box == last_box(gold):
        return "ok"
    if box and len(box) > MAX_BOX:
        return "unparsed"
    fault = "no_gold"  # what an exception from here on means
    try:
        expected = parse(gold, _GOLD, "no_fallback", "first_match", soft_limit, raise_on_error=True)
        if not expected:
            return fault
        fault = "unparsed"
        answer = parse(text, _ANSWER, "no_fallback", "first_match", soft_limit, raise_on_error=True)
        if not answer:
            return fault
        fault = "wrong"
        same = verify(expected, answer, numeric_precision=50, timeout_seconds=soft_limit, raise_on_error=True)
        return "ok" if same else fault
    except TimeoutException:  # not an Exception
        return fault if fault == "no_gold" else "timeout"
    except MemoryError:
        os._exit(1)  # a worker this full could fail its next completion too
    except Exception:
        return fault


def _boxed(answer: str) -> str:
    r"""In a box: math-verify reads a bare 3\pi as 3, and a bare (2, 3) as 3."""
    return rf"\boxed{{{answer}}}"


def _as_answer(gold: str) -> str:
    """The gold as a completion would give it."""
    if last_box(gold) is not None:
        return gold
    return f"The final answer is {gold}. I hope it is correct." if _DELIMITED.search(gold) else _boxed(gold)


def last_box(text: str) -> str | None:
    r"""What the last `\boxed{}` of the text holds; None when there is none, or it is not closed.

    >>> last_box(r"\boxed{1}, no: \boxed{\{2, \frac{3}{4}\}}.")
    '\\{2, \\frac{3}{4}\\}'
    """
    start = text.rfind(r"\boxed{")
    if start < 0:
        return None
    start += len(r"\boxed{")
    depth = 1
    for token in _BRACES.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(token.group(), 0)
        if depth == 0:
            return text[start : token.start()].strip()
    return None
