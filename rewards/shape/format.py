r"""The shape of a completion, whatever its answer is worth: its tags, a pattern of your own, or one `\boxed{}`.

A completion is hostile input here too: many a pattern that a person would write takes quadratic time or worse on some
text. The matcher is the package `regex`, on which transformers depends, because `re` has no time limit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import regex

from ..answers.math_answer import last_box
from ..shared.batch import Completion, completion_text, report

TIME_LIMIT = 0.2  # seconds of the process's CPU time for one completion; overrun a little, on megabytes severalfold

# A block holds any text but the four tags. Possessive throughout: there is one way to read a completion.
_INSIDE = r"[^<]*+(?:<(?!/?(?:think|answer)>)[^<]*+)*+"
THINK_ANSWER = rf"\s*+<think>(?!\s*+</think>){_INSIDE}</think>\s*+<answer>(?!\s*+</answer>){_INSIDE}</answer>\s*+"


@dataclass(frozen=True)
class Format:
    r"""1.0 when the whole completion matches a pattern.

    By default that is `<think>…</think>`, then `<answer>…</answer>`, each once and neither blank, with nothing but
    white space around them. A tag that is missing, repeated, nested or in another place gives 0.0; another spelling,
    such as `<THINK>`, is text.

    Args:
        pattern: A regular expression in the syntax of the package `regex`, of which `re`'s is nearly a part; `.`
            matches a line break as well. It must match from the first character to the last.

    Returns:
        Per completion: 1.0 (`ok`) or 0.0 (`wrong`, or `timeout`: no match was found within `TIME_LIMIT`).

    Raises:
        ValueError: The pattern is no regular expression.

    Known limits: a chat template that ends the prompt with `<think>` leaves it out of the completion; write a pattern
    that begins behind it. In `regex`, `{e}`, `{i}`, `{d}` and `{s}` allow errors: write `\{e\}` for the braces.

    >>> Format()(["<think>2 + 2</think>\n<answer>4</answer>", "<answer>4</answer>"])
    [1.0, 0.0]
    >>> Format(r".*\nAnswer: \d+")(["Two and two.\nAnswer: 4", "Answer: 4, I hope"])
    [1.0, 0.0]
    """

    pattern: str = THINK_ANSWER

    __name__ = "format"  # the name under which TRL logs an instance; not a field, having no annotation

    def __post_init__(self) -> None:
        try:
            regex.compile(self.pattern, regex.DOTALL)
        except (regex.error, TypeError, ValueError) as error:
            raise ValueError(
                f"pattern={self.pattern!r} is no regular expression, so no completion could match it: {error}. Mend "
                "it, or leave it out for <think>…</think><answer>…</answer>."
            ) from error

    def __call__(
        self,
        completions: Sequence[Completion],
        *,
        log_extra: Callable[[str, list[str]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """Grade a batch; the class says how."""
        statuses = [self._status(completion_text(completion)) for completion in completions]
        return report(self.__name__, statuses, log_extra, log_metric)

    def _status(self, text: str) -> str:
        try:
            match = regex.fullmatch(self.pattern, text, regex.DOTALL, timeout=TIME_LIMIT)  # compiled once, and cached
        except TimeoutError:
            return "timeout"
        return "ok" if match else "wrong"


class Boxed:
    r"""1.0 when the completion gives one final answer: exactly one `\boxed{}`, closed and not empty.

    Final means the only one: no other box, complete or not, stands before or behind it. Words may follow it. A box is
    what the reward `math` reads as one, and empty when it holds white space and braces only.

    Returns:
        Per completion: 1.0 (`ok`) or 0.0 (`wrong`: several boxes; `unparsed`: none, or one that is empty or not
        closed).

    >>> Boxed()([r"So it is \boxed{\frac{1}{2}}.", r"\boxed{1} or \boxed{2}", r"\boxed{}", r"\boxed{1"])
    [1.0, 0.0, 0.0, 0.0]
    """

    __name__ = "boxed"  # the name under which TRL logs an instance

    def __call__(
        self,
        completions: Sequence[Completion],
        *,
        log_extra: Callable[[str, list[str]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """Grade a batch; the class says how."""
        statuses = [_box_status(completion_text(completion)) for completion in completions]
        return report(self.__name__, statuses, log_extra, log_metric)


def _box_status(text: str) -> str:
    if text.count(r"\boxed") > 1:
        return "wrong"
    held = last_box(text) or ""
    return "ok" if held.strip("{} \t\r\n") else "unparsed"
