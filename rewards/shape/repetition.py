"""A penalty for saying the same thing again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..shared.batch import Completion, report


@dataclass(frozen=True)
class Repetition:
    """A penalty in proportion to the n-grams that occurred before: `P (1 - unique n-grams / n-grams)`, 0 or less.

    The n-grams are of tokens, TRL's `completion_ids`: the penalty of arXiv 2502.03373 is on tokens, and words would
    need spaces between them, which not every language writes. A completion shorter than one n-gram earns 0.0. Right or
    wrong does not matter; add it to a reward for the answer.

    Args:
        ngram_size: N in tokens. The paper's 40 finds loops; with 3, as in TRL, honest text of some length loses too.
        max_penalty: P, at most 0; what endless repetition of one n-gram comes close to.

    Returns:
        Per completion: a value in (max_penalty, 0]; the status is `ok` at 0 and `wrong` below.

    Raises:
        ValueError: An option is out of its range.

    Departs from the paper: it takes P = -0.05 from every token of a repeated n-gram, and TRL has one reward for the
    whole completion. The share of repeated n-grams is what the authors' code takes where it does so too.

    >>> Repetition(ngram_size=2)(["…"] * 3, completion_ids=[[1, 2, 3, 4, 5], [1, 2, 1, 2, 1], [1]])
    [0.0, -0.5, 0.0]
    """

    ngram_size: int = 40
    max_penalty: float = -1.0

    __name__ = "repetition"  # the name under which TRL logs an instance; not a field, having no annotation

    def __post_init__(self) -> None:
        if self.ngram_size < 1:
            raise ValueError(f"ngram_size={self.ngram_size} leaves nothing to compare; give 1 or more tokens.")
        if self.max_penalty > 0:
            raise ValueError(
                f"max_penalty={self.max_penalty} would pay for repetition; give 0 or less, such as {-self.max_penalty}."
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
        """Grade a batch; the class says how."""
        values = [self.value(ids) for ids in completion_ids]
        statuses = ["wrong" if value < 0 else "ok" for value in values]
        return report(self.__name__, statuses, log_extra, log_metric, values=values)

    def value(self, ids: Sequence[int]) -> float:
        """What a completion of these tokens earns; the equation of the class."""
        ngrams = list(zip(*(ids[start:] for start in range(self.ngram_size)), strict=False))
        repeats = len(ngrams) - len(set(ngrams))
        return self.max_penalty * repeats / len(ngrams) if repeats else 0.0
