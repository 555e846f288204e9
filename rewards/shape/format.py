r"""The rewards `format` and `boxed`: the structure of a completion, independent of its answer.

Completions are hostile input: many natural patterns take quadratic time or worse on some text. The reward uses the
package `regex`, a dependency of transformers, because the standard library's `re` has no time limit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import regex

from ..shared.batch import Completion, completion_text, report
from ..shared.boxed import last_boxed

# CPU seconds for one completion. `regex` exceeds this limit a little, and severalfold on megabytes of text.
TIME_LIMIT = 0.2

# A block may contain any text except the four tags. All quantifiers are possessive, so matching takes linear time.
_INSIDE = r"[^<]*+(?:<(?!/?(?:think|answer)>)[^<]*+)*+"
THINK_ANSWER = rf"\s*+<think>(?!\s*+</think>){_INSIDE}</think>\s*+<answer>(?!\s*+</answer>){_INSIDE}</answer>\s*+"


@dataclass(frozen=True)
class Format:
    r"""1.0 if the whole completion matches a pattern.

    The default pattern is `<think>…</think>` followed by `<answer>…</answer>`. Both occur once, neither is blank, and
    there is only white space around them. A tag that is missing, repeated, nested or misplaced gives 0.0. Another
    spelling, such as `<THINK>`, counts as text.

    TRL's `think_format_reward` checks only the think block. This reward also checks the answer block, accepts other
    patterns, limits the time of a match and logs statuses.

    Args:
        pattern: A regular expression in the syntax of the package `regex`, which is nearly a superset of `re`. It must
            match from the first character to the last. `.` also matches a line break.

    Returns:
        Per completion: 1.0 (`ok`) or 0.0 (`wrong`, or `timeout`: no match was found within `TIME_LIMIT`).

    Raises:
        ValueError: The pattern is not a valid regular expression.

    Known limits: if the chat template ends the prompt with `<think>`, the completion does not contain this tag.
    Write a pattern that begins after the tag. In `regex`, `{e}`, `{i}`, `{d}` and `{s}` mean approximate matching:
    write `\{e\}` for the braces.

    >>> Format()(["<think>2 + 2</think>\n<answer>4</answer>", "<answer>4</answer>"])
    [1.0, 0.0]
    >>> Format(r".*\nAnswer: \d+")(["Two and two.\nAnswer: 4", "Answer: 4, I hope"])
    [1.0, 0.0]
    """

    pattern: str = THINK_ANSWER

    __name__ = "format"  # TRL logs an instance under this name; not a dataclass field, as it has no annotation

    def __post_init__(self) -> None:
        try:
            regex.compile(self.pattern, regex.DOTALL)
        except (regex.error, TypeError, ValueError) as error:
            raise ValueError(
                f"pattern={self.pattern!r} is not a valid regular expression, so no completion could match it: "
                f"{error}. Correct the pattern, or leave it out to use <think>…</think><answer>…</answer>."
            ) from error

    def __call__(
        self,
        completions: Sequence[Completion],
        *,
        log_extra: Callable[[str, list[str]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """Grade a batch, as described in the class."""
        statuses = [self._status(completion_text(completion)) for completion in completions]
        return report(self.__name__, statuses, log_extra, log_metric)

    def _status(self, text: str) -> str:
        try:
            match = regex.fullmatch(self.pattern, text, regex.DOTALL, timeout=TIME_LIMIT)  # `regex` caches the pattern
        except TimeoutError:
            return "timeout"
        return "ok" if match else "wrong"


class Boxed:
    r"""1.0 if the completion has exactly one `\boxed{}`, which is closed and not empty.

    The completion must have no other box, complete or not. Text may follow the box. This reward reads boxes in the same
    way as the reward `math`. A box that contains only white space and braces is empty.

    Returns:
        Per completion: 1.0 (`ok`) or 0.0 (`wrong`: several boxes; `unparsed`: no box, or one that is empty or not
        closed).

    >>> Boxed()([r"So it is \boxed{\frac{1}{2}}.", r"\boxed{1} or \boxed{2}", r"\boxed{}", r"\boxed{1"])
    [1.0, 0.0, 0.0, 0.0]
    """

    __name__ = "boxed"  # TRL logs an instance under this name

    def __call__(
        self,
        completions: Sequence[Completion],
        *,
        log_extra: Callable[[str, list[str]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """Grade a batch, as described in the class."""
        statuses = [_box_status(completion_text(completion)) for completion in completions]
        return report(self.__name__, statuses, log_extra, log_metric)


def _box_status(text: str) -> str:
    if text.count(r"\boxed") > 1:
        return "wrong"
    content = last_boxed(text) or ""
    return "ok" if content.strip("{} \t\r\n") else "unparsed"
