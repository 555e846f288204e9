"""Checks of the ratio bounds, their exponent and the temperature."""

import math


def check_bounds(epsilon_low: float, epsilon_high: float) -> None:
    """Raise `ValueError` unless 0 < `epsilon_low` ≤ 1 and 0 < `epsilon_high` < ∞."""
    if not 0.0 < epsilon_low <= 1.0:
        raise ValueError(
            f"epsilon_low={epsilon_low} puts the lower bound 1 - epsilon_low of the probability ratio outside [0, 1). "
            "Write a value in (0, 1], for example 0.2 (in a GBPOConfig: epsilon=0.2)."
        )
    if not 0.0 < epsilon_high < math.inf:
        raise ValueError(
            f"epsilon_high={epsilon_high} puts the upper bound 1 + epsilon_high of the probability ratio outside "
            "(1, ∞), so no probability could rise. Write a positive value, for example 0.2."
        )


def check_temperature(temperature: float) -> None:
    """Raise `ValueError` unless `temperature` is a finite number ≥ 0."""
    if not 0.0 <= temperature < math.inf:
        raise ValueError(
            f"temperature={temperature} gives no valid target ratio, because the centred signal is divided by it. "
            "Write 0 for a hard target, or a positive number, for example 1e-4."
        )


def check_bound_exponent(exponent: float) -> None:
    """Raise `ValueError` unless `exponent` is in [0, 1]."""
    if not 0.0 <= exponent <= 1.0:
        raise ValueError(
            f"bound_exponent={exponent} lies outside [0, 1], between bounds on the probability ratio (0) and bounds on "
            "the probability (1). Write 0 for the published bounds, 1, or a value between, for example 0.5."
        )
