"""The mathematics of bounded-ratio reinforcement learning. Depends on torch only.

`target_ratio`, `exact_target_ratio` and `group_target_ratio` compute the target ratio ρ*. `bounded_ratio_loss` pulls
the probability ratio towards it. `bound_width` and `widened_target_ratio` let the bounds depend on a token's old
probability. `median_loss` trains a critic for the median.

Source: Bounded Ratio Reinforcement Learning, arXiv 2604.18578.
"""

from .losses import bounded_ratio_loss, median_loss
from .targets import (
    bound_width,
    exact_target_ratio,
    group_median,
    group_target_ratio,
    target_ratio,
    widened_target_ratio,
)

__all__ = [
    "bound_width",
    "bounded_ratio_loss",
    "exact_target_ratio",
    "group_median",
    "group_target_ratio",
    "median_loss",
    "target_ratio",
    "widened_target_ratio",
]
