"""Signs of a run that goes wrong, and which of them came first."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sign:
    """The first step at which a sign of trouble held, with a line of numbers for a reader."""

    step: int
    kind: str
    line: str
