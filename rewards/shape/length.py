"""The rewards `length`, `cosine` and `soft_overlong`: rewards for the length of a completion in tokens.

The length is the number of `completion_ids` that TRL passes. These ids include the end token and the results of tools,
but no padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..answers.math_answer import Math
from ..shared.batch import REWARDS, Completion, report, report_penalties
from ..shared.concurrency import run_in_thread
from ..shared.groups import gather_rows, group_rows, prompt_key


@dataclass(frozen=True)
class Length:
    r"""The length reward of Kimi k1.5: among the completions of a prompt, a shorter completion gets a higher reward.

    With `λ_i = 0.5 - (len_i - min_len) / (max_len - min_len)`, a correct completion gets `λ_i` and a wrong one
    `min(0, λ_i)`. All completions get 0 if `max_len = min_len` (arXiv 2501.12599, section "Length Penalty"). Combine
    this reward with a reward for the answer.

    `min_len` and `max_len` are taken over all graded completions of the prompt, correct or wrong, on all ranks.
    Completions that cannot be graded are ignored. The ranks exchange their rows, so the reward is synchronous.

    Args:
        grader: Decides whether a completion is correct. If the run also uses the reward
            `math` with equal options, both use the same worker processes, but each grades the completions itself.

    Columns read:
        solution: The reference answer, in any form that the reward `math` accepts.

    Returns:
        Per completion: a value in [-0.5, 0.5], or None (`no_gold`, `infra`). The status is the grader's status.

    Raises:
        ValueError: Columns differ in length.
        RuntimeError: More than 1 % of a batch is `infra`.

    Departs from the paper: the paper adds this reward only after a first part of the training. Here that needs two
    runs.

    >>> ids = [[7] * 10, [7] * 20, [7] * 30]
    >>> Length()([r"\boxed{4}", r"\boxed{5}", r"\boxed{4}"], prompts=["2+2"] * 3, completion_ids=ids, solution=[4] * 3)
    [0.5, 0.0, -0.5]
    """

    grader: Math = field(default_factory=Math)

    in_background = False  # it compares the rows of all ranks
    __name__ = "length"  # TRL logs an instance under this name; not a dataclass field, as it has no annotation

    def check_references(self, solution: Sequence[Any], **columns: Any) -> list[str]:
        """The status of each reference answer, graded as an answer to itself by the grader."""
        return self.grader.check_references(solution)

    def read_references(self, solution: Sequence[Any], **columns: Any) -> list[str]:
        """What the grader understands each reference answer to be."""
        return self.grader.read_references(solution)

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
        """Grade a batch, as described in the class."""
        statuses = self.grader.grade(completions, solution)
        keys = [prompt_key(prompt) for prompt in prompts]
        rows, mine = gather_rows(list(zip(keys, statuses, map(len, completion_ids), strict=True)))
        values = [0.0] * len(rows)
        for group in group_rows(key for key, _, _ in rows):
            graded = [row for row in group if REWARDS[rows[row][1]] is not None]
            correct = [rows[row][1] == "ok" for row in graded]
            lengths = [rows[row][2] for row in graded]
            for row, value in zip(graded, length_rewards(correct, lengths), strict=True):
                values[row] = value
        return report(self.__name__, statuses, log_extra, log_metric, self.grader.failure_hint, values[mine])


def length_rewards(correct: Sequence[bool], lengths: Sequence[int]) -> list[float]:
    """The rewards of the completions of one prompt, by the formula of `Length`.

    Args:
        correct: Whether each completion is correct.
        lengths: The length of each completion in tokens.

    Returns:
        One value in [-0.5, 0.5] per completion.

    >>> length_rewards([True, False, False], [10, 12, 20])
    [0.5, 0.0, -0.5]
    """
    if len(set(lengths)) < 2:
        return [0.0] * len(lengths)
    shortest, span = min(lengths), max(lengths) - min(lengths)
    bonuses = [0.5 - (length - shortest) / span for length in lengths]
    return [bonus if is_correct else min(0.0, bonus) for is_correct, bonus in zip(correct, bonuses, strict=True)]


@dataclass(frozen=True)
class Cosine:
    r"""The cosine reward: longer correct completions get a lower reward, longer wrong completions a smaller penalty.

    With correctness C, length L and limit L_max (arXiv 2502.03373, section 4.2):

    - if `L ≥ L_max`, the reward is `r_e`, whether the completion is correct or wrong;
    - otherwise it is `r_L + ½ (r_0 - r_L) (1 + cos(π L / L_max))`, which is `r_0` at length 0 and approaches `r_L` at
      the limit. A correct completion (`C = 1`) has `r_0^c, r_L^c`, a wrong one (`C = 0`) has `r_0^w, r_L^w`.

    This reward already depends on the answer, so do not add a reward for the answer. The default values are the
    paper's.

    TRL's `get_cosine_scaled_reward` has no `r_e`: completions at the limit get `r_L`. This reward also grades in worker
    processes that can be killed, and checks its options.

    Args:
        max_completion_length: L_max in tokens; the same as the trainer's `max_completion_length`. Generation stops
            there, so a completion of this length counts as too long, even if its last token is the end token.
        short_correct: r_0^c, the reward of a correct completion of length 0.
        long_correct: r_L^c, the reward that long correct completions approach.
        short_wrong: r_0^w, the reward of a wrong completion of length 0.
        long_wrong: r_L^w, the reward that long wrong completions approach.
        exceeded: r_e, the reward of every completion of length L_max or more.
        grader: Decides whether a completion is correct. If the run also uses the reward
            `math` with equal options, both use the same worker processes, but each grades the completions itself.

    Columns read:
        solution: The reference answer, in any form that the reward `math` accepts.

    Returns:
        Per completion: the reward by this formula, or None (`no_gold`, `infra`). The status is always the grader's
            status, also for completions that get `r_e`.

    Raises:
        ValueError: Columns differ in length, or an option is out of range.
        RuntimeError: More than 1 % of a batch is `infra`.

    Departs from the paper: the paper's code applies `r_e` 16 tokens before the limit. Here `r_e` applies at the limit,
    as in the paper's formula.

    The reward is asynchronous, like the reward `math`. In a script:

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

    __name__ = "cosine"  # TRL logs an instance under this name; not a dataclass field, as it has no annotation

    def __post_init__(self) -> None:
        if self.max_completion_length < 1:
            raise ValueError(
                f"max_completion_length={self.max_completion_length} would make every completion too long; give the "
                "trainer's max_completion_length."
            )
        lowest = min(self.short_correct, self.long_correct)
        for name in ("short_wrong", "long_wrong", "exceeded"):
            if getattr(self, name) > lowest:
                raise ValueError(
                    f"{name}={getattr(self, name)} is more than {lowest}, the lowest reward of a correct completion, "
                    "so training would favour wrong completions; give a lower value, or raise short_correct and "
                    "long_correct."
                )

    def check_references(self, solution: Sequence[Any], **columns: Any) -> list[str]:
        """The status of each reference answer, graded as an answer to itself by the grader."""
        return self.grader.check_references(solution)

    def read_references(self, solution: Sequence[Any], **columns: Any) -> list[str]:
        """What the grader understands each reference answer to be."""
        return self.grader.read_references(solution)

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
        """Grade a batch, as described in the class."""
        statuses = await run_in_thread(self.grader.grade, completions, solution)
        values = [self.value(status == "ok", len(ids)) for status, ids in zip(statuses, completion_ids, strict=True)]
        return report(self.__name__, statuses, log_extra, log_metric, self.grader.failure_hint, values)

    def value(self, correct: bool, length: int) -> float:
        """The reward of a completion of `length` tokens, by the formula of the class."""
        if length >= self.max_completion_length:
            return self.exceeded
        short, long = (self.short_correct, self.long_correct) if correct else (self.short_wrong, self.long_wrong)
        return long + 0.5 * (short - long) * (1 + math.cos(math.pi * length / self.max_completion_length))


@dataclass(frozen=True)
class SoftOverlong:
    """DAPO's soft overlong punishment: a penalty that grows linearly to -1 over a buffer before the limit.

    With length L, limit L_max and buffer L_cache (arXiv 2503.14476, equation 13):

    - `L ≤ L_max - L_cache`: 0;
    - `L_max - L_cache < L ≤ L_max`: `(L_max - L_cache - L) / L_cache`;
    - `L > L_max`: -1.

    The penalty does not depend on the answer: combine it with a reward for the answer.

    TRL's `get_soft_overlong_punishment` uses the same formula. This reward also refuses a buffer that penalizes every
    completion or none, and logs the fraction of penalized completions.

    Args:
        max_completion_length: L_max in tokens; the same as the trainer's `max_completion_length`. 20480 in the paper.
        soft_buffer: L_cache in tokens. 4096 in the paper.

    Returns:
        Per completion: a value in [-1, 0]. The status is `ok` for 0 and `wrong` for a negative value.

    Raises:
        ValueError: An option is out of range.

    >>> ids = [[7] * 80, [7] * 90, [7] * 100]
    >>> SoftOverlong(max_completion_length=100, soft_buffer=20)(["…"] * 3, completion_ids=ids)
    [0.0, -0.5, -1.0]
    """

    max_completion_length: int
    soft_buffer: int

    __name__ = "soft_overlong"  # TRL logs an instance under this name; not a dataclass field, as it has no annotation

    def __post_init__(self) -> None:
        if not 1 <= self.soft_buffer <= self.max_completion_length:
            raise ValueError(
                f"soft_buffer={self.soft_buffer} with max_completion_length={self.max_completion_length} would "
                "penalize no completion, or even empty ones; give a buffer from 1 to max_completion_length, for "
                "example a fifth of max_completion_length."
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
        return report_penalties(self.__name__, [self.value(len(ids)) for ids in completion_ids], log_extra, log_metric)

    def value(self, length: int) -> float:
        """The reward of a completion of `length` tokens, by the formula of the class."""
        excess = length - (self.max_completion_length - self.soft_buffer)
        return max(-1.0, -excess / self.soft_buffer) if excess > 0 else 0.0
