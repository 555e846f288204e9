"""Numbers and texts as they are printed on pages."""

import math
import re
import unicodedata

from markupsafe import Markup

NOTHING = "–"


def visible(text: str) -> str:
    """Replace control characters (ANSI colours, text direction) by their escape sequences."""
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character)[0] == "C" and character not in "\n\t"
        else character
        for character in text
    )


def breakable(name: str, mark: str = "<wbr>") -> Markup:
    """Allow a long name to break after each of its punctuation marks, by a tag or by another mark."""
    return Markup(mark).join(re.split(r"(?<=[:,=/])(?=\S)", visible(name)))


def number(value: float | None, digits: int = 3) -> str:
    return NOTHING if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def amount(value: float | None) -> str:
    """A count with three digits and a unit, for example `12.3 M` for 12,300,000."""
    if value is None or not math.isfinite(value):
        return NOTHING
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 10 * size or (unit != "k" and value >= size):
            return f"{value / size:.3g} {unit}"
    return f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
