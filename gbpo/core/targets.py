"""The target ratio ρ*: the optimum of Bounded Ratio Reinforcement Learning (BRRL), per sample and per group.

The BRRL problem: maximise `E_{a~π0}[ρ A]` over ratios `ρ = π/π0` with `1 - ε_low ≤ ρ ≤ 1 + ε_high` and `E[ρ] = 1`.
"""

import torch

from .bounds import check_bounds, check_temperature

BASELINES = ("median", "exact", "mean")
SCALES = ("group", "batch", "none")

_STD_EPSILON = 1e-6  # added to the standard deviation, as published
_ROOT_BRACKET = 100.0  # in units of the temperature; σ(±100) is 0 or 1 to far below float64 resolution
_ROOT_STEPS = 64  # halvings of the bracket: down to 1e-17


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """`values` in float32, or as they are if already wider."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def target_ratio(centred: torch.Tensor, *, epsilon_low: float, epsilon_high: float, temperature: float) -> torch.Tensor:
    """Target ratio of samples whose signal is already centred on its baseline.

    `ρ* = 1 - ε_low + (ε_low + ε_high) · σ(Ã / T)`, the regularised BRRL optimum; `T = 0` is its limit, the sign, with
    σ = ½ where `Ã = 0`.

    Args:
        centred: Signal minus baseline, Ã, any shape, in the unit of `temperature`.
        epsilon_low: Distance of the lower bound from 1, in (0, 1].
        epsilon_high: Distance of the upper bound from 1, > 0.
        temperature: T ≥ 0. The published LLM runs use 1e-4 on signals of unit standard deviation.

    Returns:
        Target ratios, same shape, at least float32, without gradient, in `[1 - ε_low, 1 + ε_high]`.

    Raises:
        ValueError: For bounds or a temperature without meaning.
    """
    check_bounds(epsilon_low, epsilon_high)
    check_temperature(temperature)
    centred = at_least_float32(centred.detach())
    if temperature < torch.finfo(centred.dtype).tiny:
        lift = torch.where(centred.isnan(), centred, (torch.sign(centred) + 1) / 2)  # sign(NaN) is 0
    else:
        lift = torch.sigmoid(centred / temperature)
    return _lifted(lift, epsilon_low, epsilon_high)


def exact_target_ratio(
    values: torch.Tensor, *, epsilon_low: float, epsilon_high: float, temperature: float = 0.0
) -> torch.Tensor:
    """BRRL optimum of groups of equally likely samples: the group's mean target is exactly 1 and ties share.

    Every sample starts at `1 - ε_low`; `m = n · ε_low / (ε_low + ε_high)` lifts of `ε_low + ε_high` are handed out from
    the best value down, and the class of equal values in which m runs out shares what remains. With `T > 0`:
    `ρ* = 1 - ε_low + (ε_low + ε_high) · σ((v - μ) / T)`, μ solving `mean(ρ*) = 1`.

    Departs from the paper: the published code centres on the median and leaves tied samples at σ(0) = ½, so that a
    group's mean target is not 1 when values tie or the bounds are asymmetric.

    Args:
        values: Rewards, action values or advantages, (..., G); only their order matters at T = 0. NaN marks an absent
            sample.
        epsilon_low: Distance of the lower bound from 1, in (0, 1].
        epsilon_high: Distance of the upper bound from 1, > 0.
        temperature: T ≥ 0, in the unit of `values`.

    Returns:
        Target ratios, (..., G), at least float32, without gradient. Absent samples get 1; the mean over those present
        is 1.

    Raises:
        ValueError: For bounds or a temperature without meaning.
    """
    check_bounds(epsilon_low, epsilon_high)
    check_temperature(temperature)
    values = values.detach()
    result_type = torch.promote_types(values.dtype, torch.float32)
    # float64 where the device has it, so that large integers stay apart and the mean is 1 to the last digit
    exact = values.to(torch.float32 if values.device.type == "mps" else torch.float64)
    present = ~exact.isnan()
    lifts = present.sum(-1, keepdim=True).to(exact.dtype) * (epsilon_low / (epsilon_low + epsilon_high))  # m, (..., 1)
    # comparisons with NaN are false, so absent samples are counted nowhere
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
    """Target ratio of every completion from the rewards of its group.

    `z = (r - baseline) / (std + 1e-6)`, `ρ* = 1 - ε_low + (ε_low + ε_high) · σ(z / T)`. The median is the midpoint
    median and std the unbiased one; a group of one has median 0, mean 0 and std 1, as published.

    Args:
        rewards: (N,), finite, groups contiguous. NaN marks a completion that no reward function could score.
        num_generations: Group size G; N must be a multiple of it.
        epsilon_low: Distance of the lower bound from 1, in (0, 1].
        epsilon_high: Distance of the upper bound from 1, > 0.
        baseline: `"median"`, the published method; `"exact"`, the tie-sharing optimum of `exact_target_ratio`; or
            `"mean"`, the baseline of GRPO.
        temperature: T ≥ 0, in units of the scaled reward.
        scale_rewards: Which standard deviation divides the rewards: the `"group"`'s, the `"batch"`'s or `"none"`.

    Returns:
        Target ratios, (N,), at least float32, without gradient; 1 where the reward is NaN.

    Raises:
        ValueError: For an unknown baseline or scale, bounds or a temperature without meaning, N not a multiple of G, or
            an infinite reward.
    """
    if baseline not in BASELINES:
        raise ValueError(f"baseline={baseline!r} is not a target baseline. Write one of {', '.join(BASELINES)}.")
    if scale_rewards not in SCALES:
        raise ValueError(f"scale_rewards={scale_rewards!r} is not a reward scale. Write one of {', '.join(SCALES)}.")
    groups = at_least_float32(_in_groups(rewards.detach(), num_generations))  # (N/G, G)
    if not groups.numel():
        return groups.reshape(-1)
    spread = _std(groups) if scale_rewards == "group" else _std(groups.reshape(1, -1))
    if num_generations > 1 and baseline != "exact":  # the exact optimum is measured from its own pivot
        groups = groups - group_median(groups)  # before scaling: equal rewards become 0 exactly
        if baseline == "mean":
            groups = groups - groups.nanmean(-1, keepdim=True)
    if scale_rewards != "none":
        groups = groups / (spread + _STD_EPSILON)
    bounds = {"epsilon_low": epsilon_low, "epsilon_high": epsilon_high, "temperature": temperature}
    if baseline == "exact":
        return exact_target_ratio(groups, **bounds).reshape(-1)
    return target_ratio(groups, **bounds).nan_to_num(nan=1.0).reshape(-1)


def group_median(groups: torch.Tensor) -> torch.Tensor:
    """Midpoint median of each group, (..., G) → (..., 1), over the values that are not NaN."""
    return at_least_float32(groups).nanquantile(0.5, dim=-1, keepdim=True)


def _in_groups(rewards: torch.Tensor, num_generations: int) -> torch.Tensor:
    if num_generations < 1 or rewards.dim() != 1 or rewards.numel() % num_generations:
        raise ValueError(
            f"{tuple(rewards.shape)} rewards do not split into groups of num_generations={num_generations}. Pass a "
            "vector whose length is a multiple of the group size, groups contiguous."
        )
    if rewards.isinf().any():
        raise ValueError(
            "Infinite rewards have no mean or standard deviation to be measured by. Return None (here: NaN) for what "
            "could not be graded, or a finite reward."
        )
    return rewards.view(rewards.numel() // num_generations, num_generations)


def _std(groups: torch.Tensor) -> torch.Tensor:
    """Unbiased standard deviation over what is not NaN, (..., G) → (..., 1); 1 where fewer than two values are left."""
    count = (~groups.isnan()).sum(-1, keepdim=True)
    squares = (groups - groups.nanmean(-1, keepdim=True)).square().nansum(-1, keepdim=True)
    return torch.where(count > 1, (squares / (count - 1).clamp(min=1)).sqrt(), 1.0)


def _lifted(lift: torch.Tensor, epsilon_low: float, epsilon_high: float) -> torch.Tensor:
    """From the share of the whole range, in [0, 1], to the ratio; 1 to the last digit at the symmetric middle."""
    return 1 + ((epsilon_low + epsilon_high) * lift - epsilon_low)


def _regularised_lift(
    values: torch.Tensor, lifts: torch.Tensor, *, pivot: torch.Tensor, temperature: float
) -> torch.Tensor:
    """σ((v - μ) / T) with μ such that each group's sum is `lifts`, by bisection over all groups at once.

    Measured from the pivot, the value at which the lifts run out at T = 0, the root lies within the bracket whatever
    the temperature: far below it at least `lifts` samples are fully lifted, far above it fewer are.
    """
    pivot_value = values.masked_fill(~pivot, -torch.inf).amax(-1, keepdim=True)  # (..., 1)
    distance = (values - pivot_value) / temperature
    # absent samples, and all of an empty group, add nothing; equal infinities are at distance 0
    distance = torch.where(values == pivot_value, 0.0, distance).nan_to_num(nan=-torch.inf)
    low = torch.full_like(pivot_value, -_ROOT_BRACKET)
    high = torch.full_like(pivot_value, _ROOT_BRACKET)
    for _ in range(_ROOT_STEPS):
        middle = (low + high) / 2
        too_much = torch.sigmoid(distance - middle).sum(-1, keepdim=True) > lifts
        low, high = torch.where(too_much, middle, low), torch.where(too_much, high, middle)
    return torch.sigmoid(distance - (low + high) / 2)
