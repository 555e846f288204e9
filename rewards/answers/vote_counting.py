r"""Count the votes on one prompt: which answers are equal, and which group of equal answers has the most votes.

Answers are compared in two stages. Equal text and equal plain numbers are found in this process, exactly and without a
parser. All other answers are hostile input, so the reward `math` compares them in worker processes that can be killed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from ..shared.boxed import boxed
from .math_answer import Math
from .plain_numbers import parse_number, to_latex

# For each prompt, the most common number and at most MAX_PASSES other groups are compared with all other groups.
MAX_PASSES = 8
# An answer is compared with CHUNK answers at a time. If most of these comparisons time out, the answer is compared with
# no further answers.
CHUNK = 8

_TOO_SLOW = ("timeout", "died")


@dataclass(frozen=True)
class VoteResult:
    """The result of the votes on one prompt."""

    label: str | None  # an answer of the group with the most votes
    ratio: float  # votes for the label, as a fraction of all votes
    statuses: dict[str, str]  # answer -> status
    reference_known: bool  # whether there is a reference answer that can be read
    # The answers that equal the reference answer, among the label and the answers of the completions to train on.
    correct: frozenset[str]

    def status(self, answer: str | None) -> str:
        """The status of an answer, a key of `rewards.shared.batch.REWARDS`."""
        return "unparsed" if answer is None else self.statuses[answer]

    def is_correct(self, answer: str | None) -> bool:
        """Whether the label, or an answer of a completion to train on, equals the reference answer."""
        return answer in self.correct


def count_votes(
    votes: Sequence[str | None], trained: Iterable[str | None], reference: str, as_mathematics: bool
) -> VoteResult:
    """Count the votes on one prompt.

    Args:
        votes: One answer per vote; None for a completion without a readable answer.
        trained: The answers of the completions to train on, without extra votes. They are compared with the reference
            answer.
        reference: The reference answer; empty if there is none.
        as_mathematics: Compare answers as mathematics. False: only equal text and equal plain numbers are equal.

    Raises:
        RuntimeError: The workers failed.
    """
    groups = _Groups([vote for vote in votes if vote is not None])
    if as_mathematics:
        groups.merge_equal()
    winner = groups.winner
    winning_answers = winner.answers if winner is not None else []
    statuses = {vote: "wrong" for vote in votes if vote is not None}
    statuses |= groups.disqualified | dict.fromkeys(winning_answers, "ok")
    readable = {vote for vote in trained if vote is not None and vote not in groups.disqualified}
    readable |= set(winning_answers[:1])
    correct = _equal_to_reference(reference, sorted(readable), as_mathematics) if reference else None
    return VoteResult(
        label=winning_answers[0] if winning_answers else None,
        ratio=winner.votes / len(votes) if winner is not None else 0.0,
        statuses=statuses,
        reference_known=correct is not None,
        correct=frozenset(correct or ()),
    )


def _equal_to_reference(reference: str, answers: list[str], as_mathematics: bool) -> list[str] | None:
    """The answers that equal the reference answer; None if the reference answer cannot be read."""
    value = parse_number(reference)
    undecided = []
    equal = []
    for answer in answers:
        number = parse_number(answer)
        if value is None or number is None:
            undecided.append(answer)
        elif value == number:
            equal.append(answer)
    if not as_mathematics:
        return equal + [answer for answer in undecided if answer == reference]
    statuses = _compare(reference if value is None else to_latex(value), undecided) if undecided else []
    if "no_gold" in statuses:
        return None
    return equal + [answer for answer, status in zip(undecided, statuses, strict=True) if status == "ok"]


@dataclass(eq=False)
class _Group:
    """Answers that are equal to each other."""

    answers: list[str]  # distinct texts
    votes: int
    first: int  # index of the first vote
    value: Fraction | None  # set if the answers are plain numbers

    @property
    def rank(self) -> tuple[int, int]:
        """Larger for more votes; for equal votes, larger for an earlier first vote."""
        return self.votes, -self.first

    @property
    def text(self) -> str:
        return self.answers[0] if self.value is None else to_latex(self.value)

    def absorb(self, other: _Group) -> None:
        self.answers += other.answers
        self.votes += other.votes
        self.first = min(self.first, other.first)


class _Groups:
    """The votes on one prompt, in groups of equal answers.

    At first, a group contains equal text and equal plain numbers. `merge_equal` merges groups that are equal as
    mathematics.
    """

    def __init__(self, votes: Sequence[str]):
        self.disqualified: dict[str, str] = {}  # answer whose votes do not count -> its status
        self.groups: list[_Group] = []
        by_value: dict[Fraction | str, _Group] = {}
        first_vote = {votes[i]: i for i in reversed(range(len(votes)))}
        for answer, count in Counter(votes).most_common():
            value = parse_number(answer)
            new = _Group([answer], count, first_vote[answer], value)
            group = by_value.setdefault(answer if value is None else value, new)
            if group is new:
                self.groups.append(new)
            else:
                group.absorb(new)

    @property
    def winner(self) -> _Group | None:
        return max(self.groups, key=lambda group: group.rank, default=None)

    def merge_equal(self) -> None:
        """Merge groups that are equal as mathematics, until no further merge can change the winner."""
        if all(group.value is not None for group in self.groups):
            return
        # Compare with the most common number first, or with 0. An answer that cannot be compared with a number is
        # unreadable or hostile.
        zero = _Group([], 0, max(group.first for group in self.groups), Fraction(0))
        numbers = (group for group in self.groups if group.value is not None)
        current = max(numbers, key=lambda group: group.rank, default=zero)
        remaining = [group for group in self.groups if group is not current]
        self._compare_with(current, remaining)
        if zero.votes:
            self.groups.append(zero)
        for _ in range(MAX_PASSES):
            if self._is_decided(remaining):
                break
            # The largest group comes first, so that the winner is compared with all others. Among groups with the same
            # number of votes, numbers come last, because different numbers cannot be equal to each other.
            current = max(remaining, key=lambda group: (group.votes, group.value is None, -group.first))
            remaining.remove(current)
            self._compare_with(current, remaining)

    def _is_decided(self, remaining: list[_Group]) -> bool:
        """Whether no merge of the remaining groups can outrank the best group that was compared with all others."""
        not_numbers = [group for group in remaining if group.value is None]
        best = max((group.rank for group in self.groups if group not in remaining), default=(0, 0))
        # The largest possible merge consists of all groups that are not numbers, and one number.
        most_number_votes = max((group.votes for group in remaining if group.value is not None), default=0)
        most_votes = most_number_votes + sum(group.votes for group in not_numbers)
        highest_rank = most_votes, -min((group.first for group in remaining), default=0)
        return not not_numbers or best >= highest_rank

    def _compare_with(self, current: _Group, remaining: list[_Group]) -> None:
        """Merge the groups that equal `current` into `current`, and disqualify answers that cannot be compared.

        Comparing with a number is safe. If comparing an answer with a number is too slow or fails, the answer itself is
        at fault and is disqualified. If comparing two other answers is too slow, the answer of the remaining group is
        disqualified. If most comparisons of a chunk are too slow, `current` is at fault instead. Then
        `current` is not compared with any further group, and no answer of this chunk is disqualified.
        """
        is_number = current.value is not None
        others = [group for group in remaining if not (is_number and group.value is not None)]
        size = len(others) if is_number else CHUNK
        for start in range(0, len(others), size or 1):
            chunk = others[start : start + size]
            statuses = _compare(boxed(current.text), [other.text for other in chunk])
            if not is_number and 2 * sum(status in _TOO_SLOW for status in statuses) > len(chunk):
                return
            for other, status in zip(chunk, statuses, strict=True):
                if status == "ok":
                    current.absorb(other)
                elif other.value is None and (status in _TOO_SLOW or (is_number and status != "wrong")):
                    self.disqualified |= dict.fromkeys(other.answers, status)
                else:
                    continue
                remaining.remove(other)
                self.groups.remove(other)


def _compare(reference: str, answers: Sequence[str]) -> list[str]:
    """Compare answers with a reference in the workers. Returns statuses. Raises RuntimeError if the workers fail."""
    grader = Math()
    statuses = grader.grade([boxed(answer) for answer in answers], [reference] * len(answers))
    if "infra" in statuses:
        raise RuntimeError(f"the grader itself failed. {grader.failure_hint}")
    return statuses
