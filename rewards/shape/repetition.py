"""The reward `repetition`: a penalty for repeated n-grams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..shared.batch import Completion, report_penalties


@dataclass(frozen=True)
class Repetition:
    """A penalty proportional to the fraction of repeated n-grams: `P (1 - unique n-grams / n-grams)`.

    The n-grams consist of tokens (TRL's `completion_ids`), as in arXiv 2502.03373. N-grams of words would need
    spaces, which some languages do not write. A completion shorter than one n-gram gets 0.0. The penalty does not
    depend on the answer: combine it with a reward for the answer.

    TRL's `get_repetition_penalty_reward` uses the same formula. This reward also checks its options and logs statuses,
    and its default n-gram size finds only loops.

    Args:
        ngram_size: N in tokens. The paper's 40 finds loops. TRL's default of 3 also penalizes normal long text.
        max_penalty: P, at most 0. A completion that repeats one n-gram endlessly gets a penalty close to P.

    Returns:
        Per completion: a value in (max_penalty, 0]. The status is `ok` for 0, otherwise `wrong`.

    Raises:
        ValueError: An option is out of range.

    Departs from the paper: the paper subtracts 0.05 (P = -0.05) from every token of a repeated n-gram, but TRL has only
    one reward per completion. For rewards per completion, the authors' code also uses the fraction of
    repeated n-grams.

    >>> Repetition(ngram_size=2)(["…"] * 3, completion_ids=[[1, 2, 3, 4, 5], [1, 2, 1, 2, 1], [1]])
    [0.0, -0.5, 0.0]
    """

    ngram_size: int = 40
    max_penalty: float = -1.0

    __name__ = "repetition"  # TRL logs an instance under this name; not a dataclass field, as it has no annotation

    def __post_init__(self) -> None:
        if self.ngram_size < 1:
            raise ValueError(f"ngram_size={self.ngram_size} leaves nothing to compare; give 1 or more tokens.")
        if self.max_penalty > 0:
            raise ValueError(
                f"max_penalty={self.max_penalty} would reward repetition; give 0 or less, such as {-self.max_penalty}."
            )

    def __call__(
        self,
        completions: Sequence[Completion],
        *,
        completion_ids: Sequence[Sequence[int]],
        log_extra: Callable[[str, list[str]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """Grade a batch, as described in the class."""
        return report_penalties(self.__name__, [self.value(ids) for ids in completion_ids], log_extra, log_metric)

    def value(self, ids: Sequence[int]) -> float:
        """The penalty of a completion with these token ids, by the formula of the class."""
        ngrams = list(zip(*(ids[start:] for start in range(self.ngram_size)), strict=False))
        repeats = len(ngrams) - len(set(ngrams))
        return self.max_penalty * repeats / len(ngrams) if repeats else 0.0
