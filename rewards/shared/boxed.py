r"""Answers in `\boxed{}`: how to write one and how to read the last one of a text."""

from __future__ import annotations

import re

MAX_ANSWER = 400  # characters; the rewards do not parse a longer answer

_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)


def boxed(answer: str) -> str:
    r"""The answer in a `\boxed{}`.

    >>> print(boxed("57"))
    \boxed{57}
    """
    return rf"\boxed{{{answer}}}"


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{}` of a text, stripped; None if there is no box or it is not closed.

    >>> last_boxed(r"\boxed{1}, no: \boxed{\{2, \frac{3}{4}\}}.")
    '\\{2, \\frac{3}{4}\\}'
    """
    start = text.rfind(r"\boxed{")
    if start < 0:
        return None
    start += len(r"\boxed{")
    depth = 1
    for token in _BRACES.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(token.group(), 0)
        if depth == 0:
            return text[start : token.start()].strip()
    return None
