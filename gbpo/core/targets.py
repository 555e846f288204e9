"""The target ratio ρ*, the optimum of Bounded Ratio Reinforcement Learning (BRRL), for samples and for groups.

The BRRL problem: maximise `E_{a~π0}[ρ A]` over ratios `ρ = π/π0` with `1 - ε_low ≤ ρ ≤ 1 + ε_high` and `E[ρ] = 1`.

The lift of a sample says where ρ* lies between the bounds: `(ρ* - 1 + ε_low) / (ε_low + ε_high)` is 0 at the lower
bound and 1 at the upper bound. The lifts of a group of n samples sum to `n · ε_low / (ε_low + ε_high)` if and only if
the mean of ρ* is 1.
"""

import torch

from .bounds import check_bound_exponent, check_bounds, check_temperature

BASELINES = ("median", "exact", "mean")
SCALES = ("group", "batch", "none")

_STD_EPSILON = 1e-6  # added to the standard deviation, as in the paper
_ROOT_BRACKET = 100.0  # in units of the temperature; σ(±100) is 0 or 1 in float64
_ROOT_STEPS = 64  # each halves the bracket, down to 1e-17
_LEAST_LOG_PROB = -80.0  # 1 / π0 is then at most 6e34, which fits into float32


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """`values` in float32, or unchanged if their dtype is wider."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def target_ratio(centred: torch.Tensor, *, epsilon_low: float, epsilon_high: float, temperature: float) -> torch.Tensor:
    """Target ratio of samples from which the baseline has been subtracted.

    `ρ* = 1 - ε_low + (ε_low + ε_high) · σ(Ã / T)`, the regularised BRRL optimum. At `T = 0` this is a step function of
    the sign of Ã, with σ = ½ for `Ã = 0`.

    Args:
        centred: Signal minus baseline, Ã, any shape, in the unit of `temperature`.
        epsilon_low: The lower bound of the ratio is 1 - `epsilon_low`, in (0, 1].
        epsilon_high: The upper bound of the ratio is 1 + `epsilon_high`, > 0.
        temperature: T ≥ 0. The published LLM runs use 1e-4 on signals of unit standard deviation.

    Returns:
        Target ratios in `[1 - ε_low, 1 + ε_high]`, same shape, at least float32, without gradient.

    Raises:
        ValueError: `epsilon_low`, `epsilon_high` or `temperature` is out of range.
    """
    check_bounds(epsilon_low, epsilon_high)
    check_temperature(temperature)
    centred = at_least_float32(centred.detach())
    if temperature < torch.finfo(centred.dtype).tiny:
        lift = torch.where(centred.isnan(), centred, (torch.sign(centred) + 1) / 2)  # torch.sign maps NaN to 0
    else:
        lift = torch.sigmoid(centred / temperature)
    return _lifted(lift, epsilon_low, epsilon_high)


def exact_target_ratio(
    values: torch.Tensor, *, epsilon_low: float, epsilon_high: float, temperature: float = 0.0
) -> torch.Tensor:
    """BRRL optimum of groups of equally likely samples. The mean target of each group is exactly 1.

    At `T = 0` a group of n samples has a total lift of `m = n · ε_low / (ε_low + ε_high)`. The samples with the best
    values get a lift of 1 each. The samples that tie at the value where m is used up share the rest equally. All others
    get 0. At `T > 0` the optimum is `ρ* = 1 - ε_low + (ε_low + ε_high) · σ((v - μ) / T)`, where μ solves
    `mean(ρ*) = 1`.

    Departs from the paper: the published code subtracts the median and gives tied samples σ(0) = ½. The mean target of
    a group is then not 1 if values tie or the bounds are asymmetric.

    Args:
        values: Rewards, action values or advantages, (..., G). NaN marks a missing sample. At T = 0 only the order of
            the values matters.
        epsilon_low: The lower bound of the ratio is 1 - `epsilon_low`, in (0, 1].
        epsilon_high: The upper bound of the ratio is 1 + `epsilon_high`, > 0.
        temperature: T ≥ 0, in the unit of `values`.

    Returns:
        Target ratios, (..., G), at least float32, without gradient. Missing samples get 1. The mean over the others is
        1.

    Raises:
        ValueError: `epsilon_low`, `epsilon_high` or `temperature` is out of range.
    """
    check_bounds(epsilon_low, epsilon_high)
    check_temperature(temperature)
    values = values.detach()
    result_type = torch.promote_types(values.dtype, torch.float32)
    # float64 distinguishes large integers and gives a mean of exactly 1; MPS has no float64
    exact = values.to(torch.float32 if values.device.type == "mps" else torch.float64)
    present = ~exact.isnan()
    lifts = present.sum(-1, keepdim=True).to(exact.dtype) * (epsilon_low / (epsilon_low + epsilon_high))  # m, (..., 1)
    # comparisons with NaN are false, so missing samples are not counted
    better = (exact.unsqueeze(-2) > exact.unsqueeze(-1)).sum(-1)  # (..., G)
    equal = (exact.unsqueeze(-2) == exact.unsqueeze(-1)).sum(-1)  # (..., G), the sample itself included
    lift = ((lifts - better) / equal.clamp(min=1)).clamp(0.0, 1.0)
    if temperature > 0.0:
        lift = _regularised_lift(exact, lifts, pivot=better + equal >= lifts, temperature=temperature)
    ratio = _lifted(lift, epsilon_low, epsilon_high)
    return torch.where(present, ratio, 1.0).to(result_type)


def group_target_ratio(
    rewards: torch.Tensor,
    num_generations: int,
    *,
    epsilon_low: float,
    epsilon_high: float,
    baseline: str = "median",
    temperature: float = 1e-4,
    scale_rewards: str = "group",
) -> torch.Tensor:
    """Target ratio of each completion, computed from the rewards of its group.

    `z = (r - baseline) / (std + 1e-6)` and `ρ* = 1 - ε_low + (ε_low + ε_high) · σ(z / T)`. The median is the midpoint
    median, and std is the unbiased standard deviation. A group of size 1 has median 0, mean 0 and std 1, as published.

    Args:
        rewards: (N,), finite. The completions of a group are contiguous. NaN marks a completion without a reward.
        num_generations: Group size G. N must be a multiple of it.
        epsilon_low: The lower bound of the ratio is 1 - `epsilon_low`, in (0, 1].
        epsilon_high: The upper bound of the ratio is 1 + `epsilon_high`, > 0.
        baseline: `"median"`, the published method; `"exact"`, the optimum of `exact_target_ratio`; or `"mean"`, the
            baseline of GRPO.
        temperature: T ≥ 0, in units of the scaled reward.
        scale_rewards: Divide the rewards by the standard deviation of the `"group"` or of the `"batch"`, or do not
            scale them (`"none"`).

    Returns:
        Target ratios, (N,), at least float32, without gradient. They are 1 where the reward is NaN.

    Raises:
        ValueError: `baseline` or `scale_rewards` is unknown, a bound or the temperature is out of range, N is not a
            multiple of G, or a reward is infinite.
    """
    if baseline not in BASELINES:
        raise ValueError(
            f"baseline={baseline!r} is unknown, so no target can be computed. Write one of {', '.join(BASELINES)}."
        )
    if scale_rewards not in SCALES:
        raise ValueError(
            f"scale_rewards={scale_rewards!r} is unknown, so rewards cannot be scaled. Write one of "
            f"{', '.join(SCALES)}."
        )
    groups = at_least_float32(_in_groups(rewards.detach(), num_generations))  # (N/G, G)
    if not groups.numel():
        return groups.reshape(-1)
    spread = _std(groups) if scale_rewards == "group" else _std(groups.reshape(1, -1))
    if num_generations > 1 and baseline != "exact":  # the exact optimum needs no baseline
        groups = groups - group_median(groups)  # before scaling, so that equal rewards become exactly 0
        if baseline == "mean":
            groups = groups - groups.nanmean(-1, keepdim=True)
    if scale_rewards != "none":
        groups = groups / (spread + _STD_EPSILON)
    bounds = {"epsilon_low": epsilon_low, "epsilon_high": epsilon_high, "temperature": temperature}
    if baseline == "exact":
        return exact_target_ratio(groups, **bounds).reshape(-1)
    return target_ratio(groups, **bounds).nan_to_num(nan=1.0).reshape(-1)


def bound_width(old_log_probs: torch.Tensor, *, exponent: float) -> torch.Tensor:
    """Width of the bounds of the ratio, relative to the width for a token of probability 1: `π0^(-q)`.

    With q = 0 every token has the same bounds on its ratio. With q = 1 every token has the same bounds on its
    probability: `|ρ - 1| ≤ ε / π0` means `|π - π0| ≤ ε`.

    Departs from the paper, which has q = 0 alone.

    Args:
        old_log_probs: log π0, any shape. Values below -80 count as -80, and values above 0 as 0.
        exponent: q, in [0, 1].

    Returns:
        The widths, same shape, at least float32, without gradient.

    Raises:
        ValueError: `exponent` is out of range.
    """
    check_bound_exponent(exponent)
    probable = at_least_float32(old_log_probs.detach()).clamp(_LEAST_LOG_PROB, 0.0)
    return (-exponent * probable).exp()


def widened_target_ratio(target: torch.Tensor, old_log_probs: torch.Tensor, *, exponent: float) -> torch.Tensor:
    """Target ratio of each token if the width of its bounds depends on its old probability.

    `ρ* = 1 + (t - 1) · π0^(-q)`, kept in `[0, 1 / π0]`, so that the target probability π0 ρ* lies in [0, 1]. With q = 0
    the targets stay as they are.

    Departs from the paper, which has q = 0 alone. With q = 1, `t = 1 + ε · sign(A)` and a loss that is flat past the
    target, the gradient is that of DPPO (arXiv 2602.04879). DPPO leaves out the tokens whose probability has moved by
    more than ε in the direction of the advantage.

    Args:
        target: t, in any shape that broadcasts with `old_log_probs`, for example (B, 1).
        old_log_probs: log π0, for example (B, T). Values below -80 count as -80, and values above 0 as 0.
        exponent: q, in [0, 1].

    Returns:
        ρ*, in the broadcast shape; with q = 0 in the shape of `target`. At least float32, without gradient.

    Raises:
        ValueError: `exponent` is out of range.
    """
    check_bound_exponent(exponent)
    target = at_least_float32(target.detach())
    if exponent == 0.0:
        return target
    widened = 1 + (target - 1) * bound_width(old_log_probs, exponent=exponent)
    return torch.minimum(widened.clamp(min=0.0), bound_width(old_log_probs, exponent=1.0))


def group_median(groups: torch.Tensor) -> torch.Tensor:
    """Midpoint median of each group, (..., G) → (..., 1). NaN is ignored."""
    return at_least_float32(groups).nanquantile(0.5, dim=-1, keepdim=True)


def _in_groups(rewards: torch.Tensor, num_generations: int) -> torch.Tensor:
    if num_generations < 1 or rewards.dim() != 1 or rewards.numel() % num_generations:
        raise ValueError(
            f"rewards of shape {tuple(rewards.shape)} cannot be split into groups of num_generations="
            f"{num_generations}. Pass a vector whose length is a multiple of the group size, with contiguous groups."
        )
    if rewards.isinf().any():
        raise ValueError(
            "Infinite rewards make the mean and standard deviation of their group infinite. Return a finite reward, or "
            "None (here NaN) for a completion that could not be graded."
        )
    return rewards.view(rewards.numel() // num_generations, num_generations)


def _std(groups: torch.Tensor) -> torch.Tensor:
    """Unbiased standard deviation, (..., G) → (..., 1). NaN is ignored. It is 1 for fewer than two values."""
    count = (~groups.isnan()).sum(-1, keepdim=True)
    squares = (groups - groups.nanmean(-1, keepdim=True)).square().nansum(-1, keepdim=True)
    return torch.where(count > 1, (squares / (count - 1).clamp(min=1)).sqrt(), 1.0)


def _lifted(lift: torch.Tensor, epsilon_low: float, epsilon_high: float) -> torch.Tensor:
    """The ratio for a lift in [0, 1]. With equal bounds, a lift of ½ gives exactly 1 in this order of operations."""
    return 1 + ((epsilon_low + epsilon_high) * lift - epsilon_low)


def _regularised_lift(
    values: torch.Tensor, lifts: torch.Tensor, *, pivot: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Solve for μ by bisection, for all groups at once, and return σ((v - μ) / T), whose sum per group is `lifts`.

    The pivot is the value at which the total lift is used up at T = 0. The bisection searches μ within
    ± `_ROOT_BRACKET` · T of the pivot. At the lower end the sum of σ((v - μ) / T) is at least `lifts`, and at the upper
    end the sum is smaller, so the solution lies in between.
    """
    pivot_value = values.masked_fill(~pivot, -torch.inf).amax(-1, keepdim=True)  # (..., 1)
    distance = (values - pivot_value) / temperature
    # missing samples add 0 to the sum; equal infinities have distance 0, not NaN
    distance = torch.where(values == pivot_value, 0.0, distance).nan_to_num(nan=-torch.inf)
    low = torch.full_like(pivot_value, -_ROOT_BRACKET)
    high = torch.full_like(pivot_value, _ROOT_BRACKET)
    for _ in range(_ROOT_STEPS):
        middle = (low + high) / 2
        too_much = torch.sigmoid(distance - middle).sum(-1, keepdim=True) > lifts
        low, high = torch.where(too_much, middle, low), torch.where(too_much, high, middle)
    return torch.sigmoid(distance - (low + high) / 2)
