"""Metrics of the difference between vLLM's policy and the trainer's, by TRL's names, for GBPO and GRPO."""

import math
from collections.abc import Sequence

import torch
from accelerate import Accelerator

from ..passes.anchor import Anchor


@torch.no_grad()
def sampler_gap_metrics(
    scores: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]], anchor: Anchor, accelerator: Accelerator
) -> dict[str, float]:
    """Metrics of the completions of one optimiser step, over all ranks. All ranks call this together.

    Args:
        scores: For each pass of this rank the log-probs of the trainer's policy at the time of the generation, those
            that vLLM reported (NaN: unknown), and the mask of the tokens that the policy sampled; each (B, T).
        anchor: The correction of the run.
        accelerator: The accelerator of the trainer.

    Returns:
        `sampling/sampling_logp_difference/*`: mean and maximum of |trainer - vLLM|, over the tokens that vLLM scored.
        With a correction also `sampling/importance_sampling_ratio/*` and `gbpo/vllm_masked_fraction` or
        `gbpo/vllm_truncated_fraction`: the share of importance ratios outside the limits. Empty without tokens.
    """
    device = accelerator.device
    gaps, ratios, outside = ([torch.empty(0, device=device)] for _ in range(3))
    for trainer, sampler, mask in scores:
        counts = mask.bool()
        gaps.append((trainer - sampler).abs()[counts & ~sampler.isnan()].float())
        if anchor.mode is not None:
            ratio, excluded = anchor.importance_ratio(trainer, sampler, mask)
            counts = counts.any(-1, keepdim=True) if anchor.is_by_sequence else counts
            ratios.append(ratio[counts].float())
            outside.append(excluded[counts].float())
    own = torch.stack([*_summary(torch.cat(gaps)), *_summary(torch.cat(ratios)), torch.cat(outside).sum()])
    ranks = accelerator.gather(own.unsqueeze(0)).T.tolist()  # a list over the ranks for each number
    total, tokens, _, highest, ratio_total, count, lowest_ratio, highest_ratio, outside_total = ranks
    if not sum(tokens):
        return {}
    name = "sampling/sampling_logp_difference"
    found = {f"{name}/mean": sum(total) / sum(tokens), f"{name}/max": max(highest)}
    if anchor.mode is not None:
        name, done = "sampling/importance_sampling_ratio", "masked" if anchor.mode.endswith("_mask") else "truncated"
        found |= {
            f"{name}/min": min(lowest_ratio),
            f"{name}/mean": sum(ratio_total) / sum(count),
            f"{name}/max": max(highest_ratio),
            f"gbpo/vllm_{done}_fraction": sum(outside_total) / sum(count),
        }
    return found


def _summary(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sum, number, minimum and maximum. Without values the minimum is ∞ and the maximum -∞."""
    limits = values.new_tensor([math.inf, -math.inf])
    least, most = (values.min(), values.max()) if values.numel() else limits
    return values.sum(), values.new_tensor(float(values.numel())), least, most
