"""Numbers and texts that only the report of a comparison prints."""

from __future__ import annotations

import re
from collections.abc import Callable

from gbpo.shared.pages.formatting import number

from ..shared.estimates import Interval, is_finite


def markdown(text: str) -> str:
    """Put a text on one line and escape its Markdown characters."""
    return re.sub(r"([\\`*_\[\]|<>])", r"\\\1", " ".join(text.split()))


def signed(value: float | None) -> str:
    return f"{value:+.3f}".replace("-", "−") if is_finite(value) else number(value)


def bounds(interval: Interval | None, written: Callable[[float | None], str] = number) -> str:
    """The interval in brackets, or an empty text if there is no interval."""
    ends = interval and interval.ends
    return f"[{', '.join(map(written, ends))}]" if ends else ""
