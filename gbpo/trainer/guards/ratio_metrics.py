"""Metrics of the probability ratios between the policy and the policy that sampled, for GBPO and GRPO."""

import torch
from accelerate import Accelerator

_PERCENTILES = {"p01": 0.01, "p50": 0.50, "p99": 0.99}
_MOST_VALUES = 2**24  # torch.quantile takes no more


@torch.no_grad()
def ratio_metrics(
    ratios: list[torch.Tensor], epsilon_low: float, epsilon_high: float, accelerator: Accelerator
) -> dict[str, float]:
    """Metrics of the probability ratios ρ of one optimiser step. All ranks call this together.

    Args:
        ratios: For each pass of this rank its ratios, (N,): one per token that the policy sampled, or one per sequence.
        epsilon_low: Distance of the lower bound from 1.
        epsilon_high: Distance of the upper bound from 1.
        accelerator: The accelerator of the trainer.

    Returns:
        `gbpo/outside_bounds`, the share of ratios of all ranks outside [1 - ε_low, 1 + ε_high], and the percentiles
        `gbpo/ratio_p01`, `gbpo/ratio_p50` and `gbpo/ratio_p99`. Each rank computes its percentiles, which are then
        averaged over the ranks that have ratios. Empty if no rank has ratios.
    """
    ratio = torch.cat([torch.empty(0, device=accelerator.device), *ratios]).float()  # (N,)
    sums = torch.zeros(2 + len(_PERCENTILES) + 1, device=accelerator.device)
    if ratio.numel():
        outside = (ratio < 1 - epsilon_low) | (ratio > 1 + epsilon_high)
        levels = torch.tensor([*_PERCENTILES.values()], device=ratio.device)
        sample = ratio[:: -(-ratio.numel() // _MOST_VALUES)]
        count = torch.tensor([float(ratio.numel()), 1.0], device=ratio.device)
        sums = torch.cat([outside.sum().float().view(1), sample.quantile(levels), count])
    outside, *percentiles, tokens, ranks = accelerator.reduce(sums, reduction="sum").tolist()
    if not tokens:
        return {}
    found = {f"gbpo/ratio_{name}": total / ranks for name, total in zip(_PERCENTILES, percentiles, strict=True)}
    return {"gbpo/outside_bounds": outside / tokens} | found
