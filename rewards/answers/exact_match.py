"""The reward `exact_match`: the completion equals the reference answer as text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ..shared.batch import Completion, completion_text, reference_text, report
from ..shared.boxed import MAX_ANSWER
from ..shared.references import extraction_hint


class ExactMatch:
    """1.0 if the completion equals the reference answer as text. White space around both is ignored.

    Columns read:
        solution: The reference answer, text or a number. None, NaN and blank text mean that there is none.

    Returns:
        Per completion: 1.0 (`ok`), 0.0 (`wrong`) or None (`no_gold`).

    Known limits: the reward compares text, not values. "57.0" and "The answer is 57" do not match 57.

    >>> ExactMatch()(["57", "58", "57"], solution=[57, 57, None])
    [1.0, 0.0, None]
    """

    __name__ = "exact_match"  # TRL logs an instance under this name

    def __call__(
        self,
        completions: Sequence[Completion],
        *,
        solution: Sequence[Any],
        log_extra: Callable[[str, list[str]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """Grade a batch, as described in the class."""
        statuses = []
        for completion, reference in zip(completions, map(reference_text, solution), strict=True):
            status = "ok" if completion_text(completion).strip() == reference else "wrong"
            statuses.append(status if reference else "no_gold")
        return report(self.__name__, statuses, log_extra, log_metric)

    def check_references(self, solution: Sequence[Any], **columns: Any) -> list[str]:
        """Whether a model could write each reference answer: `ok`, `no_gold`, or why not and what to do.

        If every float of the data set is an integer, integers were meant: one missing value in a file turns 48 into
        48.0.
        """
        floats = [value for value in solution if isinstance(value, float) and math.isfinite(value)]
        if all(value.is_integer() for value in floats):
            return [_float_hint(value) or _status(value) for value in solution]
        return [_status(value) for value in solution]

    def read_references(self, solution: Sequence[Any], **columns: Any) -> list[str]:
        """The text that a completion must equal, in quotes.

        >>> ExactMatch().read_references([48, 48.0, " yes "])
        ["'48'", "'48.0'", "'yes'"]
        """
        return [repr(reference_text(reference)) for reference in solution]


def _status(reference: Any) -> str:
    if hint := extraction_hint(reference):
        return hint
    text = reference_text(reference)
    if not text:
        return "no_gold"
    if len(text) > MAX_ANSWER:
        return f"a text of {len(text)} characters, which no completion repeats exactly; give the answer alone"
    return "ok"


def _float_hint(reference: Any) -> str | None:
    if not isinstance(reference, float) or not math.isfinite(reference):
        return None
    return f"{reference} is a float, so the completion {reference:.0f} gets no reward; store integers or text"
