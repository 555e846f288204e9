r"""Plain numbers: integers, decimals and simple fractions, whose values are compared exactly and without a parser."""

from __future__ import annotations

import re
from fractions import Fraction

from ..shared.boxed import MAX_ANSWER

MAX_DECIMALS = 50  # a longer decimal is not tried

_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_SCIENTIFIC = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?[eE][+-]?[0-9]{1,2}")
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


def other_spellings(text: str) -> list[str]:
    r"""The value of a number as a fraction and as a decimal, where it has these forms; empty for any other text.

    Python reads the number here, not the parser of the reward `math`, so that a test of the reward proves something.

    >>> other_spellings("1,250"), other_spellings("1/8"), other_spellings("1e-3"), other_spellings("x")
    (['1250', '1250.0'], ['\\frac{1}{8}', '0.125'], ['\\frac{1}{1000}', '0.001'], [])
    """
    plain = text.replace(",", "") if _THOUSANDS.fullmatch(text) else text
    value = Fraction(plain) if _SCIENTIFIC.fullmatch(plain) else parse_number(plain)
    if value is None:
        return []
    digits = next((digits for digits in range(1, MAX_DECIMALS) if value * 10**digits % 1 == 0), None)
    if digits is None:
        return [to_latex(value)]
    sign, scaled = "-" if value < 0 else "", f"{abs(value) * 10**digits}".zfill(digits + 1)
    return [to_latex(value), f"{sign}{scaled[:-digits]}.{scaled[-digits:]}"]
