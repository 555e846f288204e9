"""Rewards of the length of a completion, in tokens: relative to its group, on a cosine, or near the limit only.

Lengths are those of TRL's `completion_ids`: the end token and the results of tools count, padding does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..answers.math_answer import Math
from ..shared.batch import REWARDS, Completion, in_thread, report
from ..shared.groups import gather, members, prompt_key


@dataclass(frozen=True)
class Length:
    r"""The length reward of Kimi k1.5: among the completions of a prompt, the short ones earn more.

    `λ_i = 0.5 - (len_i - min_len) / (max_len - min_len)`; a correct completion earns `λ_i`, a wrong one `min(0, λ_i)`,
    and all earn 0 when `max_len = min_len` (arXiv 2501.12599, section "Length Penalty"). Add it to a reward for the
    answer.

    `min_len` and `max_len` are of all graded completions of the prompt, right or wrong, on all ranks; one that cannot
    be graded is left out of both. Synchronous, because the ranks exchange their rows.

    Args:
        grader: Decides what is correct. A reward `math` of the same configuration shares its workers, not its work.

    Columns read:
        solution: The gold, as the reward `math` reads it.

    Returns:
        Per completion: a value in [-0.5, 0.5], or None (`no_gold`, `infra`). The status is the grader's.

    Raises:
        ValueError: Columns differ in length.
        RuntimeError: More than 1 % of a batch is `infra`.

    Departs from the paper: it trains without this reward first; here that is a run of its own.

    >>> ids = [[7] * 10, [7] * 20, [7] * 30]
    >>> Length()([r"\boxed{4}", r"\boxed{5}", r"\boxed{4}"], prompts=["2+2"] * 3, completion_ids=ids, solution=[4] * 3)
    [0.5, 0.0, -0.5]
    """

    grader: Math = field(default_factory=Math)

    __name__ = "length"  # the name under which TRL logs an instance; not a field, having no annotation

    def check_golds(self, solution: Sequence[Any], **columns: Any) -> list[str]:
        """The status of each gold as an answer to itself, by the grader."""
        return self.grader.check_golds(solution)

    def __call__(
        self,
        completions: Sequence[Completion],
        *,
        prompts: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        solution: Sequence[Any],
        log_extra: Callable[[str, list[str]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """Grade a batch; the class says how."""
        statuses = self.grader.grade(completions, solution)
        keys = [prompt_key(prompt) for prompt in prompts]
        rows, here = gather(list(zip(keys, statuses, map(len, completion_ids), strict=True)))
        values = [0.0] * len(rows)
        for group in members(key for key, _, _ in rows):
            graded = [row for row in group if REWARDS[rows[row][1]] is not None]
            correct = [rows[row][1] == "ok" for row in graded]
            lengths = [rows[row][2] for row in graded]
            for row, value in zip(graded, length_rewards(correct, lengths), strict=True):
                values[row] = value
        return report(self.__name__, statuses, log_extra, log_metric, self.grader.check, values[here])


def length_rewards(correct: Sequence[bool], lengths: Sequence[int]) -> list[float]:
    """What the completions of one prompt earn; the equation of `Length`.

    >>> length_rewards([True, False, False], [10, 12, 20])
    [0.5, 0.0, -0.5]
    """
    if len(set(lengths)) < 2:
        return [0.0] * len(lengths)
    shortest, span = min(lengths), max(lengths) - min(lengths)
    lifts = [0.5 - (length - shortest) / span for length in lengths]
    return [lift if right else min(0.0, lift) for right, lift in zip(correct, lifts, strict=True)]


@dataclass(frozen=True)
class Cosine:
    r"""The cosine reward: a correct completion earns less the longer it is, a wrong one loses less.

    With C the correctness, L the length and L_max the limit (arXiv 2502.03373, section 4.2):

    - `L ≥ L_max`: `r_e`, right or wrong;
    - else `r_L + ½ (r_0 - r_L) (1 + cos(π L / L_max))`, from `r_0` at length 0 to `r_L` at the limit, with
      `r_0^c, r_L^c` for `C = 1` and `r_0^w, r_L^w` for `C = 0`.

    It stands in for a reward for the answer. The defaults of the values are the paper's.

    Args:
        max_completion_length: L_max in tokens; the trainer's own `max_completion_length`. Generation stops there, so
            a completion of that many tokens counts as exceeding it, even if the last is the end token.
        short_correct: r_0^c.
        long_correct: r_L^c.
        short_wrong: r_0^w.
        long_wrong: r_L^w.
        exceeded: r_e.
        grader: Decides what is correct. A reward `math` of the same configuration shares its workers, not its work.

    Columns read:
        solution: The gold, as the reward `math` reads it.

    Returns:
        Per completion: its value, or None (`no_gold`, `infra`). The status is the grader's, also beyond the limit.

    Raises:
        ValueError: Columns differ in length, or an option is out of its range.
        RuntimeError: More than 1 % of a batch is `infra`.

    Departs from the paper: its code sees the limit exceeded 16 tokens early; here, as in its formula, at the limit.

    Asynchronous, as the reward `math` is; in a script of your own:

    >>> import asyncio
    >>> answers, ids = [r"\boxed{4}", r"\boxed{5}", r"\boxed{4}"], [[7] * 50, [7] * 50, [7] * 100]
    >>> asyncio.run(Cosine(max_completion_length=100)(answers, completion_ids=ids, solution=[4] * 3))
    [1.5, -5.0, -10.0]
    """

    max_completion_length: int
    short_correct: float = 2.0
    long_correct: float = 1.0
    short_wrong: float = -10.0
    long_wrong: float = 0.0
    exceeded: float = -10.0
    grader: Math = field(default_factory=Math)

    __name__ = "cosine"  # the name under which TRL logs an instance; not a field, having no annotation

    def __post_init__(self) -> None:
        if self.max_completion_length < 1:
            raise ValueError(
                f"max_completion_length={self.max_completion_length} counts every completion as too long; give the "
                "trainer's own max_completion_length."
            )
        least = min(self.short_correct, self.long_correct)
        for name in ("short_wrong", "long_wrong", "exceeded"):
            if getattr(self, name) > least:
                raise ValueError(
                    f"{name}={getattr(self, name)} is more than the {least} that a correct completion can earn, so "
                    "training would seek it; give a lower one, or raise short_correct and long_correct."
                )

    def check_golds(self, solution: Sequence[Any], **columns: Any) -> list[str]:
        """The status of each gold as an answer to itself, by the grader."""
        return self.grader.check_golds(solution)

    async def __call__(
        self,
        completions: Sequence[Completion],
        *,
        completion_ids: Sequence[Sequence[int]],
        solution: Sequence[Any],
        log_extra: Callable[[str, list[str]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """Grade a batch; the class says how."""
        statuses = await in_thread(self.grader.grade, completions, solution)
        values = [self.value(status == "ok", len(ids)) for status, ids in zip(statuses, completion_ids, strict=True)]
        return report(self.__name__, statuses, log_extra, log_metric, self.grader.check, values)

    def value(self, correct: bool, length: int) -> float:
        """What a completion of `length` tokens earns; the equation of the class."""
        if length >= self.max_completion_length:
            return self.exceeded
        short, long = (self.short_correct, self.long_correct) if correct else (self.short_wrong, self.long_wrong)
        return long + 0.5 * (short - long) * (1 + math.cos(math.pi * length / self.max_completion_length))


@dataclass(frozen=True)
class SoftOverlong:
    """DAPO's soft overlong punishment: nothing up to a buffer before the limit, then linearly down to -1 at the limit.

    With L the length, L_max the limit and L_cache the buffer (arXiv 2503.14476, equation 13):

    - `L ≤ L_max - L_cache`: 0;
    - `L_max - L_cache < L ≤ L_max`: `(L_max - L_cache - L) / L_cache`;
    - `L > L_max`: -1.

    Right or wrong does not matter; add it to a reward for the answer.

    Args:
        max_completion_length: L_max in tokens; the trainer's own `max_completion_length`. In the paper 20480.
        soft_buffer: L_cache in tokens. In the paper 4096.

    Returns:
        Per completion: a value in [-1, 0]; the status is `ok` at 0 and `wrong` below.

    Raises:
        ValueError: An option is out of its range.

    >>> ids = [[7] * 80, [7] * 90, [7] * 100]
    >>> SoftOverlong(max_completion_length=100, soft_buffer=20)(["…"] * 3, completion_ids=ids)
    [0.0, -0.5, -1.0]
    """

    max_completion_length: int
    soft_buffer: int

    __name__ = "soft_overlong"  # the name under which TRL logs an instance; not a field, having no annotation

    def __post_init__(self) -> None:
        if not 1 <= self.soft_buffer <= self.max_completion_length:
            raise ValueError(
                f"soft_buffer={self.soft_buffer} with max_completion_length={self.max_completion_length} punishes "
                "either nothing that the trainer can generate, or even an empty completion; give a buffer from 1 to "
                "max_completion_length, for example a fifth of it."
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
        values = [self.value(len(ids)) for ids in completion_ids]
        statuses = ["wrong" if value < 0 else "ok" for value in values]
        return report(self.__name__, statuses, log_extra, log_metric, values=values)

    def value(self, length: int) -> float:
        """What a completion of `length` tokens earns; the equation of the class."""
        beyond = length - (self.max_completion_length - self.soft_buffer)
        return max(-1.0, -beyond / self.soft_buffer) if beyond > 0 else 0.0
