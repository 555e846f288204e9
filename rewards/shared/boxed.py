r"""Answers in `\boxed{}`: how to write one and how to read the answer of a text."""

from __future__ import annotations

import re

MAX_ANSWER = 400  # characters; the rewards do not parse a longer answer

MAX_SEPARATOR = 40  # characters between two boxes of a list

_OPENING = r"\boxed{"
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_SEPARATOR = re.compile(r"[\s$]*(?:\\[)\]])?\s*(?:,|;|,?\s*(?:and|or|\\text\{\s*(?:and|or)\s*\}))\s*(?:\\[(\[])?[\s$]*")


def boxed(answer: str) -> str:
    r"""The answer in a `\boxed{}`.

    >>> print(boxed("57"))
    \boxed{57}
    """
    return rf"\boxed{{{answer}}}"


def last_boxed(text: str) -> str | None:
    r"""The answer of a text: the content of the last `\boxed{}`, stripped; None if there is no box or it is not closed.

    Boxes with nothing between them but a comma, a semicolon, `and` or `or` are one answer, a list.

    >>> last_boxed(r"\boxed{1}, no: \boxed{\{2, \frac{3}{4}\}}.")
    '\\{2, \\frac{3}{4}\\}'
    >>> last_boxed(r"$x$ is $\boxed{3}$ or $\boxed{5}$."), last_boxed(r"\boxed{4}, or \boxed{5")
    ('3, 5', None)
    """
    start = text.rfind(_OPENING)
    end = _box_end(text, start, len(text))
    if end is None:
        return None
    contents = [text[start + len(_OPENING) : end - 1].strip()]
    while sum(map(len, contents)) + len(contents) <= MAX_ANSWER:  # a longer list is not read anyway
        previous = text.rfind(_OPENING, 0, start)
        end = _box_end(text, previous, start)
        if end is None or start - end > MAX_SEPARATOR or not _SEPARATOR.fullmatch(text, end, start):
            break
        contents.append(text[previous + len(_OPENING) : end - 1].strip())
        start = previous
    return ", ".join(dict.fromkeys(reversed(contents)))


def _box_end(text: str, start: int, limit: int) -> int | None:
    """The index after the box that opens at `start`; None if there is no box, or it is not closed before `limit`."""
    if start < 0:
        return None
    depth = 1
    for token in _BRACES.finditer(text, start + len(_OPENING), limit):
        depth += {"{": 1, "}": -1}.get(token.group(), 0)
        if depth == 0:
            return token.end()
    return None
