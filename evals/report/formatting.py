"""Numbers and texts as they are printed in the report."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from markupsafe import Markup

from ..shared.estimates import Interval, is_finite

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


def markdown(text: str) -> str:
    """Put a text on one line and escape its Markdown characters."""
    return re.sub(r"([\\`*_\[\]|<>])", r"\\\1", " ".join(text.split()))


def number(value: float | None, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if is_finite(value) else NOTHING


def signed(value: float | None) -> str:
    return f"{value:+.3f}".replace("-", "−") if is_finite(value) else NOTHING


def bounds(interval: Interval | None, written: Callable[[float | None], str] = number) -> str:
    """The interval in brackets, or an empty text if there is no interval."""
    ends = interval and interval.ends
    return f"[{', '.join(map(written, ends))}]" if ends else ""


def amount(value: float | None) -> str:
    """A count with three digits and a unit, for example `12.3 M` for 12,300,000."""
    if not is_finite(value):
        return NOTHING
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 10 * size or (unit != "k" and value >= size):
            return f"{value / size:.3g} {unit}"
    return f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    if not is_finite(seconds):
        return NOTHING
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
