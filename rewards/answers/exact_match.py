"""The reward `exact_match`: the completion equals the reference answer as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..shared.batch import Completion, completion_text, reference_text, report


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
        """The status of each reference answer, graded as an answer to itself."""
        return ["ok" if reference_text(reference) else "no_gold" for reference in solution]
