"""The bounded-ratio loss of BPO and GBPO, and the loss of BPO's median critic."""

import math

import torch

from .bounds import check_bounds, check_temperature
from .targets import at_least_float32

# exp(80) = 6e34 fits into float32, also when multiplied by |A| up to 6000
_LARGEST_LOG_RATIO = 80.0


def bounded_ratio_loss(
    log_ratio: torch.Tensor,
    target_ratio: torch.Tensor,
    advantages: torch.Tensor,
    *,
    overshoot_slope: float = 1.0,
    max_log_ratio: float = 20.0,
) -> torch.Tensor:
    """Distance between the probability ratio and its target, times the absolute advantage.

    `l = |A| · |ρ - ρ*|` with `ρ = exp(log_ratio)`. Where ρ has moved past the target, away from 1, the distance is also
    multiplied by `overshoot_slope`. Nothing counts as past the target if `ρ* = 1`.

    Departs from the paper: `overshoot_slope`. With 1 the loss is the published one. With 0 and `ρ* = 1 + ε · sign(A)`
    the gradient equals the gradient of PPO's and GRPO's clipped loss.

    Args:
        log_ratio: log π - log π0 of each token, sequence or action, in any shape that broadcasts with the other
            arguments, for example (B, T) for tokens. Clamped to ± `max_log_ratio`; the gradient is 0 beyond.
        target_ratio: ρ*, for example (B, 1) for tokens. Receives no gradient.
        advantages: A, for example (B, 1) for tokens. Receives no gradient.
        overshoot_slope: Factor of the distance past the target, ≥ 0.
        max_log_ratio: Bound of |log ρ|, in (0, 80].

    Returns:
        The loss of each element, in the broadcast shape, at least float32. It is finite for any log-ratio.

    Raises:
        ValueError: `overshoot_slope` or `max_log_ratio` is out of range.
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
    """`bounded_ratio_loss` for a ratio ρ that is already computed. Other arguments and the result are the same."""
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
    """Smooth quantile loss. Its minimiser is the baseline of the BRRL optimum, which is the median for equal bounds.

    `l = τ · softplus(x / τ) - x · ε_low / (ε_low + ε_high)` with `x = R - u`. At the minimum
    `E[σ((R - u) / τ)] = ε_low / (ε_low + ε_high)`, which is the condition `E[ρ*] = 1`. As τ → 0, u tends to the
    `ε_high / (ε_low + ε_high)` quantile of R.

    Args:
        values: Returns R, any shape. Receive no gradient.
        medians: The critic's estimates u, in the same shape. (B, 1) and (B,) would broadcast to (B, B).
        temperature: τ ≥ 0, in the unit of `values`. 0 gives the pinball loss.
        epsilon_low: The lower bound of the ratio is 1 - `epsilon_low`, in (0, 1].
        epsilon_high: The upper bound of the ratio is 1 + `epsilon_high`, > 0.

    Returns:
        The loss of each element, at least float32.

    Raises:
        ValueError: `temperature`, `epsilon_low` or `epsilon_high` is out of range.
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
    """Raise `ValueError` unless both options of `bounded_ratio_loss` are in range."""
    if not 0.0 <= overshoot_slope < math.inf:
        raise ValueError(
            f"overshoot_slope={overshoot_slope} would push the ratio further past its target, or make the loss "
            "infinite. Write 0 for a flat loss past the target, 1 for the published loss, or another number ≥ 0."
        )
    if not 0.0 < max_log_ratio <= _LARGEST_LOG_RATIO:
        raise ValueError(
            f"max_log_ratio={max_log_ratio} does not keep the ratio exp(log_ratio) in a finite range. Write a value in "
            f"(0, {_LARGEST_LOG_RATIO:g}], for example 20."
        )
