r"""Plain numbers: integers, decimals and simple fractions, whose values are compared exactly and without a parser."""

from __future__ import annotations

import re
from fractions import Fraction

from ..shared.boxed import MAX_ANSWER

_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+|[0-9]+ ?/ ?[0-9]+)")
_FRACTION = re.compile(r"([+-]?)\\[dt]?frac ?(?:\{([0-9]+)\}|([0-9])) ?(?:\{([0-9]+)\}|([0-9]))")


def parse_number(text: str) -> Fraction | None:
    r"""The value of a plain number of at most `MAX_ANSWER` characters; None for any other text.

    >>> parse_number("-0.50"), parse_number(r"-\dfrac{1}{2}"), parse_number(r"\frac\pi2"), parse_number("1/0")
    (Fraction(-1, 2), Fraction(-1, 2), None, None)
    """
    if len(text) > MAX_ANSWER:  # a reference answer may be longer
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


def to_latex(value: Fraction) -> str:
    r"""LaTeX that the reward `math` can parse.

    >>> print(to_latex(Fraction(-1, 2)), to_latex(Fraction(7)))
    -\frac{1}{2} 7
    """
    if value.denominator == 1:
        return str(value)
    return rf"{'-' if value < 0 else ''}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"
