"""The completion is the answer, nothing more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..shared.batch import Completion, completion_text, gold_text, report


class ExactMatch:
    """1.0 when the completion is the gold, to the letter, once both are stripped of outer white space.

    Columns read:
        solution: The gold, text or a number. None, NaN or blank text is no gold.

    Returns:
        Per completion: 1.0 (`ok`), 0.0 (`wrong`) or None (`no_gold`).

    Known limits: text is compared, not values, so "57.0" is not 57, and "The answer is 57" is not either.

    >>> ExactMatch()(["57", "58", "57"], solution=[57, 57, None])
    [1.0, 0.0, None]
    """

    __name__ = "exact_match"  # the name under which TRL logs an instance

    def __call__(
        self,
        completions: Sequence[Completion],
        *,
        solution: Sequence[Any],
        log_extra: Callable[[str, list[str]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """Grade a batch; the class says how."""
        statuses = []
        for completion, gold in zip(completions, map(gold_text, solution), strict=True):
            status = "ok" if completion_text(completion).strip() == gold else "wrong"
            statuses.append(status if gold else "no_gold")
        return report(self.__name__, statuses, log_extra, log_metric)

    def check_golds(self, solution: Sequence[Any], **columns: Any) -> list[str]:
        """The status of each gold as an answer to itself."""
        return ["ok" if gold_text(gold) else "no_gold" for gold in solution]
