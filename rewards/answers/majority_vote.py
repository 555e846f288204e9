r"""The commonest answer as the label: rewards without golds, as in test-time reinforcement learning (TTRL).

Answers are compared in two stages. Equal text and equal plain numbers are found here, exactly and at once. Whatever
else stands in a box is hostile input, so `math_answer` compares it in worker processes that can be killed.
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ..shared.batch import Completion, completion_text, gold_text, report
from ..shared.groups import gather, members, prompt_key
from .math_answer import MAX_BOX, Math, last_box

MAX_PASSES = 8  # classes of a prompt, besides its commonest number, that are compared with all the others
CHUNK = 8  # comparisons before an answer that holds up the workers is given up

_LATE = ("timeout", "died")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+|[0-9]+ ?/ ?[0-9]+)")
_FRACTION = re.compile(r"([+-]?)\\[dt]?frac ?(?:\{([0-9]+)\}|([0-9])) ?(?:\{([0-9]+)\}|([0-9]))")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MajorityVote:
    r"""1.0 when the completion's answer is the commonest one among all votes on its prompt, on whichever rank.

    The answer is what the last `\boxed{}` holds. Answers that are equal as mathematics are one class, and the class
    with the most votes is the label; of classes with as many votes, the one whose first vote came first. A prompt
    without any readable vote has no label.

    Equal plain numbers (digits, a decimal point, a simple fraction) are equal exactly. Other answers are compared by
    `math_answer` with the commonest number, then class by class, the largest first, until no class can overtake the
    best one. Every rank compares for the prompts that begin in its batch, and all learn the result.

    Args:
        votes: Votes on a prompt, a multiple of `num_generations`. The trainer generates those that exceed the
            completions it trains on and passes them as `extra_votes`. None: no extra votes.
        boxed: False when the answer is the whole completion, stripped; then nothing but equal text and equal plain
            numbers is equal, and no worker is started.

    Columns read:
        solution: The gold, if there is one, for the metrics alone: the reward never reads it.
        extra_votes: Further completions of each row's prompt, which vote and earn nothing.

    Returns:
        Per completion: 1.0 (`ok`) or 0.0 (`wrong`; `unparsed`: no box, a box over 400 characters, or one that cannot be
        read; `timeout` and `died`: comparing this answer failed, so it has no vote).

    Raises:
        ValueError: An option out of its range, columns of unequal length, or `votes` without `extra_votes`.
        RuntimeError: The workers cannot start, or break; on all ranks.

    Logs, beside the share of each status, with the same value on every rank:
        `rewards/majority_vote/majority_ratio`: votes of the label's class over all votes, mean over the prompts; a
            prompt without label counts 0.
        `rewards/majority_vote/label_accuracy`: share of the prompts with a gold whose label equals it.
        `rewards/majority_vote/reward_accuracy`: share of the completions on such prompts whose reward is the one that
            the gold would have given. These two only where there is a column `solution`; NaN while no gold is known.
        Column `majority_vote/label`: an answer of the winning class, empty where there is none.

    Known limits: those of `math_answer`; the class of a rare answer beyond the first `MAX_PASSES` may be split.

    >>> answers = [r"It is \boxed{0.5}.", r"\boxed{\frac12}", r"\boxed{2}", "0.5"]
    >>> MajorityVote()(answers, prompts=["Half of 1?"] * 4)
    [1.0, 1.0, 0.0, 0.0]
    >>> MajorityVote(boxed=False)(["57", "57.0", "58"], prompts=["50+7="] * 3)
    [1.0, 1.0, 0.0]
    """

    votes: int | None = None
    boxed: bool = True

    __name__ = "majority_vote"  # the name under which TRL logs an instance; not a field, having no annotation

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
        """Grade a batch; the class says how."""
        if self.votes is not None and extra_votes is None:
            raise ValueError(
                f"votes={self.votes}, but no extra_votes came: this trainer draws none, and fewer would vote than the "
                "option says. Train with GBPOTrainer, or leave votes out."
            )
        extra_votes = [()] * len(completions) if extra_votes is None else extra_votes
        golds = [""] * len(completions) if solution is None else [gold_text(gold) for gold in solution]
        rows, mine = gather(
            [
                (prompt_key(prompt), [self._answer(vote) for vote in (completion, *extra)], gold)
                for completion, prompt, extra, gold in zip(completions, prompts, extra_votes, golds, strict=True)
            ]
        )
        ballots = members(key for key, _, _ in rows)  # places of the rows of each prompt
        own = [[rows[i][1:] for i in places] for places in ballots if mine.start <= places[0] < mine.stop]
        results = self._count_all(own)
        result_of = {i: result for result, places in zip(results, ballots, strict=True) for i in places}
        answers = [(votes[0], result_of[i]) for i, (_, votes, _) in enumerate(rows)]  # of what is trained on
        statuses = [result.status(answer) for answer, result in answers[mine]]
        if log_extra is not None:
            log_extra(f"{self.__name__}/label", [result.label or "" for _, result in answers[mine]])
        if log_metric is not None:
            metrics = {"majority_ratio": [result.ratio for result in results]}
            if solution is not None:
                metrics["label_accuracy"] = [result.is_right(result.label) for result in results if result.golden]
                metrics["reward_accuracy"] = [
                    result.is_right(answer) == (result.status(answer) == "ok")
                    for answer, result in answers
                    if result.golden
                ]
            for name, values in metrics.items():
                log_metric(f"rewards/{self.__name__}/{name}", sum(values) / len(values) if values else math.nan)
        return report(self.__name__, statuses, log_extra, log_metric)

    def _answer(self, completion: Completion) -> str | None:
        text = completion_text(completion)
        answer = last_box(text) if self.boxed else text.strip()
        return answer if answer and len(answer) <= MAX_BOX else None

    def _count_all(self, own: list[list[tuple[list[str | None], str]]]) -> list[_Result]:
        """The results of the prompts of all ranks, of which this one counts its own; an error of one is all ranks'.

        A prompt is given by its rows: the votes, that of the completion first, and the gold.
        """
        counted: list[_Result | str] = []
        try:
            for rows in own:
                votes = [vote for votes, _ in rows for vote in votes]
                counted.append(_count(votes, [votes[0] for votes, _ in rows], rows[0][1], self.boxed))
        except Exception as error:  # whatever it is, the other ranks wait for this one
            logger.exception("Counting the votes failed.")
            counted = [f"The reward {self.__name__!r} could not compare the votes: {error}"]
        everything, _ = gather(counted)
        results = [result for result in everything if isinstance(result, _Result)]
        if len(results) < len(everything):
            raise RuntimeError(next(result for result in everything if isinstance(result, str)))
        return results


@dataclass(frozen=True)
class _Result:
    """What the votes on one prompt say."""

    label: str | None
    ratio: float  # of the votes, those for the label
    statuses: dict[str, str]  # by answer
    golden: bool  # whether the gold is known
    right: frozenset[str]  # the answers, among those trained on and the label, that equal it

    def status(self, answer: str | None) -> str:
        return "unparsed" if answer is None else self.statuses[answer]

    def is_right(self, answer: str | None) -> bool:
        return answer in self.right


def _count(votes: Sequence[str | None], trained: Iterable[str | None], gold: str, boxed: bool) -> _Result:
    """Count the votes on one prompt; `trained` are the answers to be held against the gold."""
    election = _Election([vote for vote in votes if vote is not None])
    if boxed:
        election.merge()
    winner = election.winner
    elected = winner.answers if winner is not None else []
    statuses = {vote: "wrong" for vote in votes if vote is not None}
    statuses |= election.lost | dict.fromkeys(elected, "ok")
    readable = {vote for vote in trained if vote is not None and vote not in election.lost} | set(elected[:1])
    right = _equal_to_gold(gold, sorted(readable), boxed) if gold else None
    return _Result(
        label=elected[0] if elected else None,
        ratio=winner.votes / len(votes) if winner is not None else 0.0,
        statuses=statuses,
        golden=right is not None,
        right=frozenset(right or ()),
    )


def _equal_to_gold(gold: str, answers: list[str], boxed: bool) -> list[str] | None:
    """The answers that equal the gold; None when it cannot be read."""
    value = _number(gold)
    unclear = []
    right = []
    for answer in answers:
        number = _number(answer)
        if value is None or number is None:
            unclear.append(answer)
        elif value == number:
            right.append(answer)
    if not boxed:
        return right + [answer for answer in unclear if answer == gold]
    statuses = _compare(gold if value is None else _latex(value), unclear) if unclear else []
    if "no_gold" in statuses:
        return None
    return right + [answer for answer, status in zip(unclear, statuses, strict=True) if status == "ok"]


@dataclass(eq=False)
class _Class:
    """Answers that are equal."""

    answers: list[str]  # distinct
    votes: int
    first: int  # place of the first vote
    value: Fraction | None  # of a plain number

    @property
    def order(self) -> tuple[int, int]:
        return self.votes, -self.first

    @property
    def text(self) -> str:
        return self.answers[0] if self.value is None else _latex(self.value)

    def absorb(self, other: _Class) -> None:
        self.answers += other.answers
        self.votes += other.votes
        self.first = min(self.first, other.first)


class _Election:
    """The votes on one prompt in classes: at first of equal text and equal plain numbers, then of equal mathematics."""

    def __init__(self, votes: Sequence[str]):
        self.lost: dict[str, str] = {}  # answer without a vote -> its status
        self.classes: list[_Class] = []
        by_value: dict[Fraction | str, _Class] = {}
        places = {votes[i]: i for i in reversed(range(len(votes)))}
        for answer, count in Counter(votes).most_common():
            value = _number(answer)
            spelling = _Class([answer], count, places[answer], value)
            known = by_value.setdefault(answer if value is None else value, spelling)
            if known is spelling:
                self.classes.append(spelling)
            else:
                known.absorb(spelling)

    @property
    def winner(self) -> _Class | None:
        return max(self.classes, key=lambda c: c.order, default=None)

    def merge(self) -> None:
        """Compare the classes that are not plain numbers with the others, as far as the winner depends on it."""
        if all(c.value is not None for c in self.classes):
            return
        # the commonest number first, or 0: whatever cannot be compared with a number is unreadable or hostile
        zero = _Class([], 0, max(c.first for c in self.classes), Fraction(0))
        head = max((c for c in self.classes if c.value is not None), key=lambda c: c.order, default=zero)
        waiting = [c for c in self.classes if c is not head]
        self._compare_with(head, waiting)
        if zero.votes:
            self.classes.append(zero)
        for _ in range(MAX_PASSES):
            if self._decided(waiting):
                break
            # largest first, so that the winner is among the heads and has found all that equals it; numbers come last
            # where the votes are even, for they differ from one another
            head = max(waiting, key=lambda c: (c.votes, c.value is None, -c.first))
            waiting.remove(head)
            self._compare_with(head, waiting)

    def _decided(self, waiting: list[_Class]) -> bool:
        """Whether no class that is still to come can overtake the best of those that have been compared with all."""
        unlike = [c for c in waiting if c.value is None]
        best = max((c.order for c in self.classes if c not in waiting), default=(0, 0))
        # at most all that are no numbers, and one number
        number = max((c.votes for c in waiting if c.value is not None), default=0)
        ceiling = number + sum(c.votes for c in unlike), -min((c.first for c in waiting), default=0)
        return not unlike or best >= ceiling

    def _compare_with(self, head: _Class, waiting: list[_Class]) -> None:
        """Let `head` absorb what equals it among `waiting`, and take out what cannot be compared.

        Nothing is wrong with a number, so what is late or unreadable beside one loses its votes. So does what is late
        beside another answer, unless most of a chunk are: then it is `head` that holds them up, and it goes no further.
        """
        number = head.value is not None
        others = [c for c in waiting if not (number and c.value is not None)]
        size = len(others) if number else CHUNK
        for start in range(0, len(others), size or 1):
            chunk = others[start : start + size]
            statuses = _compare(_box(head.text), [other.text for other in chunk])
            if not number and 2 * sum(status in _LATE for status in statuses) > len(chunk):
                return
            for other, status in zip(chunk, statuses, strict=True):
                if status == "ok":
                    head.absorb(other)
                elif other.value is None and (status in _LATE or (number and status != "wrong")):
                    self.lost |= dict.fromkeys(other.answers, status)
                else:
                    continue
                waiting.remove(other)
                self.classes.remove(other)


def _compare(gold: str, answers: Sequence[str]) -> list[str]:
    """The status of each answer beside one gold, by workers; RuntimeError when they fail."""
    grader = Math()
    statuses = grader.grade([_box(answer) for answer in answers], [gold] * len(answers))
    if "infra" in statuses:
        raise RuntimeError(f"the grader itself failed, not the model. {grader.check}")
    return statuses


def _box(answer: str) -> str:
    return rf"\boxed{{{answer}}}"


def _number(text: str) -> Fraction | None:
    r"""The value of a plain number: an integer, a decimal or a simple fraction of at most `MAX_BOX` characters.

    >>> _number("-0.50"), _number(r"-\dfrac{1}{2}"), _number("6/12"), _number(r"\frac\pi2"), _number("1/0")
    (Fraction(-1, 2), Fraction(-1, 2), Fraction(1, 2), None, None)
    """
    if len(text) > MAX_BOX:  # a gold may be longer than an answer
        return None
    if match := _FRACTION.fullmatch(text):
        sign, *digits = match.groups()
        text = sign + "/".join(filter(None, digits))
    elif not _DECIMAL.fullmatch(text):
        return None
    try:
        return Fraction(text.replace(" ", ""))
    except ZeroDivisionError:
        return None


def _latex(value: Fraction) -> str:
    """A plain number as `math_answer` reads it.

    >>> print(_latex(Fraction(-1, 2)), _latex(Fraction(7)))
    -\\frac{1}{2} 7
    """
    if value.denominator == 1:
        return str(value)
    return rf"{'-' if value < 0 else ''}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"
