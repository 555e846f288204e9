"""The bounded-ratio loss of BPO and GBPO, and the smooth quantile loss of BPO's median critic."""

import math

import torch

from .bounds import check_bounds, check_temperature
from .targets import at_least_float32

# exp(80) still fits in float32, with room for |A|
_LARGEST_LOG_RATIO = 80.0


def bounded_ratio_loss(
    log_ratio: torch.Tensor,
    target_ratio: torch.Tensor,
    advantages: torch.Tensor,
    *,
    overshoot_slope: float = 1.0,
    max_log_ratio: float = 20.0,
) -> torch.Tensor:
    """BPO loss: the absolute distance of the probability ratio from its target, weighted by the advantage.

    `l = |A| · |ρ - ρ*|` with `ρ = exp(log_ratio)`. Past the target, on its side away from 1, the slope is
    `|A| · overshoot_slope`; at `ρ* = 1` both sides have slope |A|.

    Departs from the paper: `overshoot_slope`. 1 is the published loss; 0 with `ρ* = 1 + ε · sign(A)` has exactly the
    gradient of the clipped loss of PPO and GRPO.

    Args:
        log_ratio: log π - log π0 of each token, sequence or action; any shape that broadcasts with the others, for
            tokens (B, T). Clamped to ± `max_log_ratio`, beyond which the gradient is 0.
        target_ratio: ρ*, for tokens (B, 1). No gradient flows through it.
        advantages: A, for tokens (B, 1). No gradient flows through it.
        overshoot_slope: Slope past the target relative to |A|, ≥ 0.
        max_log_ratio: Largest |log ρ| that is told apart, in (0, 80].

    Returns:
        The loss of each element, broadcast shape, at least float32; finite for any log-ratio.

    Raises:
        ValueError: For a slope or a clamp without meaning.
    """
    check_loss_options(overshoot_slope, max_log_ratio)
    ratio = probability_ratio(log_ratio, max_log_ratio)
    return ratio_loss(ratio, target_ratio, advantages, overshoot_slope=overshoot_slope)


def probability_ratio(log_ratio: torch.Tensor, max_log_ratio: float) -> torch.Tensor:
    """ρ = exp(log_ratio), with the log-ratio clamped to ± `max_log_ratio`; same shape, at least float32."""
    return at_least_float32(log_ratio).clamp(-max_log_ratio, max_log_ratio).exp()


def ratio_loss(
    ratio: torch.Tensor, target_ratio: torch.Tensor, advantages: torch.Tensor, *, overshoot_slope: float
) -> torch.Tensor:
    """`bounded_ratio_loss` of a ratio ρ that is already known; arguments and result as there."""
    target = at_least_float32(target_ratio.detach())
    weight = at_least_float32(advantages.detach()).abs()
    error = ratio - target
    distance = error.abs()
    return weight * torch.where(error.detach() * (target - 1) > 0, overshoot_slope * distance, distance)


def median_loss(
    values: torch.Tensor,
    medians: torch.Tensor,
    *,
    temperature: float = 1.0,
    epsilon_low: float = 1.0,
    epsilon_high: float = 1.0,
) -> torch.Tensor:
    """Smooth quantile loss whose minimiser is the baseline μ of the BRRL optimum; the median for equal epsilons.

    `l = τ · softplus(x / τ) - x · ε_low / (ε_low + ε_high)` with `x = R - u`. At its minimum
    `E[σ((R - u) / τ)] = ε_low / (ε_low + ε_high)`, the condition `E[ρ*] = 1`; as τ → 0, u tends to the
    `ε_high / (ε_low + ε_high)` quantile of R.

    Args:
        values: Returns R, any shape. No gradient flows through them.
        medians: The critic's estimates u, same shape; (B, 1) against (B,) would broadcast to (B, B).
        temperature: τ ≥ 0, in the unit of `values`; 0 is the pinball loss.
        epsilon_low: Distance of the lower bound from 1, in (0, 1].
        epsilon_high: Distance of the upper bound from 1, > 0.

    Returns:
        The loss of each element, at least float32.

    Raises:
        ValueError: For bounds or a temperature without meaning.
    """
    check_bounds(epsilon_low, epsilon_high)
    check_temperature(temperature)
    excess = at_least_float32(values.detach()) - at_least_float32(medians)
    if temperature < torch.finfo(excess.dtype).tiny:
        smooth = excess.relu()
    else:
        smooth = torch.nn.functional.softplus(excess, beta=1 / temperature, threshold=40.0)
    return smooth - excess * (epsilon_low / (epsilon_low + epsilon_high))


def check_loss_options(overshoot_slope: float, max_log_ratio: float) -> None:
    """Raise `ValueError` unless the two options of `bounded_ratio_loss` have a meaning."""
    if not 0.0 <= overshoot_slope < math.inf:
        raise ValueError(
            f"overshoot_slope={overshoot_slope} would push the ratio further past its target. Write 0 for no slope "
            "there, 1 for the published loss, or another number ≥ 0."
        )
    if not 0.0 < max_log_ratio <= _LARGEST_LOG_RATIO:
        raise ValueError(
            f"max_log_ratio={max_log_ratio} leaves the ratio exp(log_ratio) no finite range. Write a value in "
            f"(0, {_LARGEST_LOG_RATIO:g}], for example 20."
        )
