r"""The reward `majority_vote`: the most common answer is the label, as in test-time reinforcement learning (TTRL)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..shared.batch import Completion, completion_text, reference_text, report
from ..shared.boxed import MAX_ANSWER, last_boxed
from ..shared.groups import gather_rows, group_rows, prompt_key
from .vote_counting import VoteResult, count_votes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MajorityVote:
    r"""1.0 if the completion's answer is the most common answer among the votes on the same prompt, on all ranks.

    The answer is the content of the last `\boxed{}`, or a list of boxes, as in the reward `math`. Answers that are
    equal as mathematics form a group, and the group with the most votes is the label. A tie goes to the group whose
    first vote came first. A prompt without a readable vote has no label.

    Plain numbers (digits, a decimal point, a simple fraction) are compared exactly. `math_answer` compares
    the other answers: first with the most common number, then with the other groups, beginning with the largest. It
    stops when no further merge can change the winner. The rank that has the first completion of a prompt counts the
    votes on this prompt, and sends the result to all ranks.

    Args:
        votes: Votes per prompt, a multiple of `num_generations`. The completions to train on vote too. The trainer
            generates the remaining votes and passes them as `extra_votes`. None: no extra votes.
        boxed: True: the answer is the content of the last `\boxed{}`. False: the answer is the whole completion,
            stripped. Then only equal text and equal plain numbers are equal, and no worker is started.

    Columns read:
        solution: The reference answers, if available. The reward does not use them; only the metrics do.
        extra_votes: Additional completions of each row's prompt. They vote and get no reward.

    Returns:
        Per completion: 1.0 (`ok`) or 0.0 (`wrong`; `unparsed`: no box, a box over 400 characters, or one that cannot be
        read; `timeout` and `died`: comparing this answer failed, so the votes for it do not count).

    Raises:
        ValueError: An option is out of range, columns differ in length, or `votes` is set without `extra_votes`.
        RuntimeError: The workers cannot start, or they break. All ranks raise it.

    In addition to the fraction of each status, logs these values, which are the same on every rank:
        `rewards/majority_vote/majority_ratio`: votes for the label as a fraction of all votes, averaged over the
            prompts. A prompt without a label counts as 0.
        `rewards/majority_vote/label_accuracy`: among the prompts with a readable reference answer, the fraction whose
            label equals the reference answer. Needs a column `solution`; NaN if no reference answer can be read.
        `rewards/majority_vote/reward_accuracy`: among the completions on these prompts, the fraction that would get the
            same reward if the reference answer were the label. Needs a column `solution`; NaN if no reference answer
            can be read.
        Column `majority_vote/label`: an answer of the winning group; empty if there is no label.

    Known limits: the limits of `math_answer`. Only the most common number and up to `MAX_PASSES` other groups are
    compared with all other groups. Equal answers in the remaining groups may stay in separate groups.

    >>> answers = [r"It is \boxed{0.5}.", r"\boxed{\frac12}", r"\boxed{2}", "0.5"]
    >>> MajorityVote()(answers, prompts=["Half of 1?"] * 4)
    [1.0, 1.0, 0.0, 0.0]
    >>> MajorityVote(boxed=False)(["57", "57.0", "58"], prompts=["50+7="] * 3)
    [1.0, 1.0, 0.0]
    """

    votes: int | None = None
    boxed: bool = True

    in_background = False  # it compares the rows of all ranks
    __name__ = "majority_vote"  # TRL logs an instance under this name; not a dataclass field, as it has no annotation

    def __post_init__(self) -> None:
        if self.votes is not None and self.votes < 2:
            raise ValueError(
                f"votes={self.votes} would make every completion its own majority; give a multiple of num_generations, "
                "or None."
            )

    def __call__(
        self,
        completions: Sequence[Completion],
        *,
        prompts: Sequence[str | list[dict[str, Any]]],
        solution: Sequence[Any] | None = None,
        extra_votes: Sequence[Sequence[Completion]] | None = None,
        log_extra: Callable[[str, list[str]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """Grade a batch, as described in the class."""
        if self.votes is not None and extra_votes is None:
            raise ValueError(
                f"votes={self.votes}, but no extra_votes were passed, so there would be fewer votes than that. This "
                "trainer generates no extra votes: train with GBPOTrainer, or leave votes out."
            )
        extra_votes = [()] * len(completions) if extra_votes is None else extra_votes
        references = [""] * len(completions) if solution is None else list(map(reference_text, solution))
        rows, mine = gather_rows(
            [
                (prompt_key(prompt), [self._answer(vote) for vote in (completion, *extra)], reference)
                for completion, prompt, extra, reference in zip(
                    completions, prompts, extra_votes, references, strict=True
                )
            ]
        )
        rows_of_prompts = group_rows(key for key, _, _ in rows)
        own = [[rows[i][1:] for i in group] for group in rows_of_prompts if mine.start <= group[0] < mine.stop]
        results = self._count_all(own)
        result_of_row = {i: result for result, group in zip(results, rows_of_prompts, strict=True) for i in group}
        answers = [(votes[0], result_of_row[i]) for i, (_, votes, _) in enumerate(rows)]  # without the extra votes
        statuses = [result.status(answer) for answer, result in answers[mine]]
        if log_extra is not None:
            log_extra(f"{self.__name__}/label", [result.label or "" for _, result in answers[mine]])
        if log_metric is not None:
            metrics = {"majority_ratio": [result.ratio for result in results]}
            if solution is not None:
                metrics["label_accuracy"] = [
                    result.is_correct(result.label) for result in results if result.reference_known
                ]
                metrics["reward_accuracy"] = [
                    result.is_correct(answer) == (result.status(answer) == "ok")
                    for answer, result in answers
                    if result.reference_known
                ]
            for name, values in metrics.items():
                log_metric(f"rewards/{self.__name__}/{name}", sum(values) / len(values) if values else math.nan)
        return report(self.__name__, statuses, log_extra, log_metric)

    def _answer(self, completion: Completion) -> str | None:
        text = completion_text(completion)
        answer = last_boxed(text) if self.boxed else text.strip()
        return answer if answer and len(answer) <= MAX_ANSWER else None

    def _count_all(self, own: list[list[tuple[list[str | None], str]]]) -> list[VoteResult]:
        """Count the votes on this rank's prompts, and collect the results of all ranks.

        Args:
            own: The rows of each prompt. A row consists of a list of votes and the reference answer. The first vote is
                that of the completion to train on; the others are extra votes.

        Raises:
            RuntimeError: Counting failed on any rank. All ranks raise it.
        """
        counted: list[VoteResult | str] = []
        try:
            for rows in own:
                votes = [vote for votes, _ in rows for vote in votes]
                counted.append(count_votes(votes, [votes[0] for votes, _ in rows], rows[0][1], self.boxed))
        except Exception as error:  # any error must reach the other ranks, which wait for this one
            logger.exception("Counting the votes failed.")
            counted = [f"The reward {self.__name__!r} could not compare the votes: {error}"]
        gathered, _ = gather_rows(counted)
        results = [result for result in gathered if isinstance(result, VoteResult)]
        if len(results) < len(gathered):
            raise RuntimeError(next(result for result in gathered if isinstance(result, str)))
        return results
