"""Estimates with the intervals that a few seeds allow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """An estimate over `n` runs with its 95 % confidence interval; of one run no interval is claimed."""

    estimate: float
    low: float | None
    high: float | None
    n: int
