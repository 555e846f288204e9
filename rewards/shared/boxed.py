r"""Answers in `\boxed{}`: how to write one and how to read the answer of a text."""

from __future__ import annotations

import re

MAX_ANSWER = 400  # characters; the rewards do not parse a longer answer

MAX_SEPARATOR = 40  # characters between two boxes of a list

_SPACE = r"(?:[\s$]|\\q?quad|\\[,;: ])*"
_NAME = rf"(?P<variable>[A-Za-z])(?:_\{{?\w+\}}?)?\s*={_SPACE}"  # of the value in a box, such as `x_1 =`
_NAME_BEFORE = re.compile(rf"(?<![A-Za-z\\]){_NAME}\Z")
_SEPARATOR = re.compile(
    rf"{_SPACE}(?:\\[)\]])?{_SPACE}(?:,|;|,?\s*(?:and|or|\\text\{{\s*(?:and|or)\s*\}})){_SPACE}(?:\\[(\[])?{_SPACE}"
    rf"(?:{_NAME})?"
)
_OPENING = re.compile(r"\\boxed\s*\{")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)


def boxed(answer: str) -> str:
    r"""The answer in a `\boxed{}`.

    >>> print(boxed("57"))
    \boxed{57}
    """
    return rf"\boxed{{{answer}}}"


def last_boxed(text: str) -> str | None:
    r"""The answer of a text: the content of the last `\boxed{}`, stripped; None if there is no box or it is not closed.

    Boxes with nothing between them but a comma, a semicolon, `and` or `or` are one answer, a list. Before each of them
    may stand the same variable, as in `x = `.

    >>> last_boxed(r"\boxed{1}, no: \boxed{\{2, \frac{3}{4}\}}.")
    '\\{2, \\frac{3}{4}\\}'
    >>> last_boxed(r"$x$ is $\boxed{3}$ or $\boxed{5}$."), last_boxed(r"\boxed{4}, or \boxed{5")
    ('3, 5', None)
    """
    openings = list(_OPENING.finditer(text))
    box = _outermost(text, openings)
    if box is None:
        return None
    contents = [_content(text, *box)]
    start = box[0].start()
    while sum(map(len, contents)) + len(contents) <= MAX_ANSWER:  # a longer list is not read anyway
        while openings and openings[-1].start() >= start:
            openings.pop()
        end = _box_end(text, openings[-1].end(), start) if openings else None
        if end is None or start - end > MAX_SEPARATOR or not _are_listed(text, openings[-1].start(), end, start):
            break
        contents.append(_content(text, openings[-1], end))
        start = openings[-1].start()
    return ", ".join(dict.fromkeys(reversed(contents)))


def _are_listed(text: str, first: int, end: int, start: int) -> bool:
    """Whether two boxes are one list. The first box is `text[first:end]`, and the other one begins at `start`.

    Both may be values of the same variable, as in `x = ... or x = ...`.
    """
    separator = _SEPARATOR.fullmatch(text, end, start)
    if separator is None or separator["variable"] is None:
        return separator is not None
    name = _NAME_BEFORE.search(text[max(0, first - MAX_SEPARATOR) : first])
    return name is not None and name["variable"] == separator["variable"]


def has_box(text: str) -> bool:
    r"""Whether a box opens in a text, as `\boxed{` or `\boxed {`."""
    return _OPENING.search(text) is not None


def _outermost(text: str, openings: list[re.Match[str]]) -> tuple[re.Match[str], int] | None:
    """The last box and its end. A box around it that is no longer than an answer counts if it has other content."""
    if not openings:
        return None
    box = openings[-1]
    end = _box_end(text, box.end(), len(text))
    if end is None:
        return None
    for outer in reversed(openings[:-1]):
        if box.start() - outer.end() > MAX_ANSWER:
            break
        outer_end = _box_end(text, outer.end(), min(len(text), outer.end() + MAX_ANSWER + 1))
        if outer_end is None or outer_end <= end:
            continue
        if (text[outer.end() : box.start()] + text[end : outer_end - 1]).strip(" \n$"):
            box, end = outer, outer_end
    return box, end


def _content(text: str, opening: re.Match[str], end: int) -> str:
    return text[opening.end() : end - 1].strip()


def _box_end(text: str, start: int, limit: int) -> int | None:
    """The index after the box whose content starts at `start`; None if it is not closed before `limit`."""
    depth = 1
    for token in _BRACES.finditer(text, start, limit):
        depth += {"{": 1, "}": -1}.get(token.group(), 0)
        if depth == 0:
            return token.end()
    return None
