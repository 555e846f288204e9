"""The mathematics of bounded-ratio reinforcement learning, on torch alone.

`target_ratio`, `exact_target_ratio` and `group_target_ratio` give ρ*; `bounded_ratio_loss` regresses the probability
ratio towards it; `median_loss` trains the baseline where it has to be learnt.

Source: Bounded Ratio Reinforcement Learning, arXiv 2604.18578.
"""

from .losses import bounded_ratio_loss, median_loss
from .targets import exact_target_ratio, group_median, group_target_ratio, target_ratio

__all__ = [
    "bounded_ratio_loss",
    "exact_target_ratio",
    "group_median",
    "group_target_ratio",
    "median_loss",
    "target_ratio",
]
