r"""The reward `math`: mathematical answers, compared by math-verify in worker processes that can be killed.

Completions are hostile input: `\boxed{9^{9^{9^9}}}` keeps sympy busy forever, and C code may ignore an alarm. Each
completion is therefore graded in a worker of `shared.workers`. Math-verify's own alarm stops most computations after
`SOFT_LIMIT` seconds. If a completion takes more than `hard_limit` seconds, its worker is killed. Workers return only a
status.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify
from math_verify.errors import TimeoutException

from ..shared.batch import Completion, completion_text, reference_text, report
from ..shared.boxed import MAX_ANSWER, boxed, last_boxed
from ..shared.concurrency import run_in_thread
from ..shared.workers import Workers

# Seconds for each of three steps: parse the reference answer, parse the answer, compare them.
# The value must be an int: with a float, math-verify parses nothing.
SOFT_LIMIT = 1

_REFERENCE = [LatexExtractionConfig(boxed_match_priority=0)]
_ANSWER = [LatexExtractionConfig(boxed_match_priority=0, try_extract_without_anchor=False)]
_DELIMITED = re.compile(r"(?<!\\)(?:\$|\\\(|\\\[|\\boxed)")  # an escaped \$ is a currency


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

    Known limits of math-verify (remove reference answers from the data set for which they matter):
        - Numbers that agree to 6 decimals count as equal, also if both are close to 0.
        - A percentage equals the number without the sign: 9% equals 9.
        - Units and number bases are ignored: 52_8 equals 52.
        - (1, 2) equals {1, 2}.
        - Only the last side of an equality is compared.
        - Two boxes close together are merged into a set.
        - The sentence "The final answer is $4$. I hope it is correct" is read with the same priority as a box.
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
                f"hard_limit={self.hard_limit} would kill workers before the soft limit can stop them. Parsing the "
                f"reference answer, parsing the answer and comparing them may take {SOFT_LIMIT} second each. Give more "
                f"than {3 * SOFT_LIMIT} seconds."
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
        return self._grade_all(
            [
                (completion_text(completion), reference_text(reference))
                for completion, reference in zip(completions, solution, strict=True)
            ]
        )

    def check_references(self, solution: Sequence[Any], **columns: Any) -> list[str]:
        r"""The status of each reference answer, graded as an answer to itself.

        >>> Math().check_references([r"\frac12", "", "?"])
        ['ok', 'no_gold', 'no_gold']
        """
        references = [reference_text(reference) for reference in solution]
        return self._grade_all([(_as_answer(text), text) for text in references], equal_text_is_correct=False)

    def _grade_all(self, pairs: Sequence[tuple[str, str]], equal_text_is_correct: bool = True) -> list[str]:
        """The status of each pair of a completion and a reference answer."""
        rows = [row for row, (_, reference) in enumerate(pairs) if reference]
        graded = self._workers.run(_grade, [(*pairs[row], equal_text_is_correct) for row in rows])
        statuses = ["no_gold"] * len(pairs)
        for row, status in zip(rows, graded, strict=True):
            statuses[row] = status
        return statuses

    def close(self) -> None:
        """Stop the workers of this configuration. A later batch starts new ones."""
        self._workers.close()

    @property
    def _workers(self) -> Workers:
        return Workers(self.workers, self.hard_limit, self.memory_mb, _prepare)


def _as_answer(reference: str) -> str:
    """The reference answer in the form of a completion."""
    if last_boxed(reference) is not None:
        return reference
    if _DELIMITED.search(reference):
        return f"The final answer is {reference}. I hope it is correct."
    return boxed(reference)


# The functions below run inside a worker.


def _prepare() -> None:
    """Load the modules that sympy loads at first use. Grading one answer also checks that this worker works."""
    if _grade(r"\boxed{\frac12x(x+1)}", "0.5x^2+0.5x", soft_limit=60) != "ok":
        raise RuntimeError("In a new worker, math-verify does not recognise that x(x+1)/2 equals 0.5x^2+0.5x.")


def _grade(text: str, reference: str, equal_text_is_correct: bool = True, soft_limit: int = SOFT_LIMIT) -> str:
    if not _DELIMITED.search(reference):
        reference = boxed(reference)  # math-verify reads a bare 3\pi as 3, and a bare (2, 3) as 3
    answer_text = last_boxed(text)
    if answer_text and equal_text_is_correct and answer_text == last_boxed(reference):
        return "ok"
    if answer_text and len(answer_text) > MAX_ANSWER:
        return "unparsed"
    status_if_raised = "no_gold"
    try:
        expected = parse(reference, _REFERENCE, "no_fallback", "first_match", soft_limit, raise_on_error=True)
        if not expected:
            return "no_gold"
        status_if_raised = "unparsed"
        answer = parse(text, _ANSWER, "no_fallback", "first_match", soft_limit, raise_on_error=True)
        if not answer:
            return "unparsed"
        status_if_raised = "wrong"
        equal = verify(expected, answer, numeric_precision=50, timeout_seconds=soft_limit, raise_on_error=True)
        return "ok" if equal else "wrong"
    except TimeoutException:  # not a subclass of Exception
        return "no_gold" if status_if_raised == "no_gold" else "timeout"
    except MemoryError:
        os._exit(1)  # a worker without free memory could also fail on its next completion
    except Exception:
        return status_if_raised
