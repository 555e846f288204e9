"""Metrics of completions that were sampled ahead: their age, and how far the policy has moved since."""

import math
from collections.abc import Sequence

import torch
from accelerate import Accelerator


@torch.no_grad()
def staleness_metrics(
    ran: Sequence[tuple[torch.Tensor, torch.Tensor]], step: int, limit: int | None, accelerator: Accelerator
) -> dict[str, float]:
    """Metrics of the completions of one optimiser step, over all ranks. All ranks call this together.

    Args:
        ran: For each pass of this rank the number of optimiser steps that the weights had taken that sampled each
            completion, and whether the completion counts in the loss; each (B,).
        step: Number of optimiser steps taken so far.
        limit: `max_staleness`.

    Returns:
        `gbpo/staleness/mean` and `gbpo/staleness/max`: age of the completions in the loss, in optimiser steps. With a
        limit also `gbpo/dropped_stale`: how many completions were left out because they are older.
    """
    ages = torch.cat([torch.empty(0, device=accelerator.device), *(step - versions for versions, _ in ran)]).float()
    counts = torch.cat([ages.new_empty(0).bool(), *(counts for _, counts in ran)])
    dropped = ages > (math.inf if limit is None else limit)
    used = ages[counts & ~dropped]
    most = used.max() if used.numel() else used.new_tensor(-math.inf)
    own = torch.stack([used.sum(), used.new_tensor(float(used.numel())), dropped.sum().float(), most])
    totals, numbers, dropped_of_ranks, highest = accelerator.gather(own.unsqueeze(0)).T.tolist()
    found = {} if limit is None else {"gbpo/dropped_stale": sum(dropped_of_ranks)}
    if sum(numbers):
        found |= {"gbpo/staleness/mean": sum(totals) / sum(numbers), "gbpo/staleness/max": max(highest)}
    return found


@torch.no_grad()
def first_use_metrics(
    scores: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]], accelerator: Accelerator
) -> dict[str, float]:
    """Metrics of the ratios w = π / μ of the tokens of one optimiser step. All ranks call this together.

    Args:
        scores: For each pass of this rank log π, the log-probs of the trainer's policy when the generation is first
            used; log μ, those of the policy that sampled (NaN: unknown); and the mask of the sampled tokens; each
            (B, T).

    Returns:
        `gbpo/ratio_at_first_use/min`, `/mean` and `/max`: of w. `gbpo/effective_sample_size`: (Σ w)² / (N Σ w²), in
        (0, 1]; 1 if all N ratios are equal. Empty without tokens.
    """
    device = accelerator.device
    ratios = [(policy - sampler).exp()[mask.bool() & ~sampler.isnan()].double() for policy, sampler, mask in scores]
    ratio = torch.cat([torch.empty(0, device=device, dtype=torch.double), *ratios])
    least, most = (ratio.min(), ratio.max()) if ratio.numel() else ratio.new_tensor([math.inf, -math.inf])
    count = ratio.new_tensor(float(ratio.numel()))
    own = torch.stack([ratio.sum(), ratio.square().sum(), count, least, most]).float()
    totals, squares, counts, lowest, highest = accelerator.gather(own.unsqueeze(0)).T.tolist()
    if not sum(counts):
        return {}
    prefix = "gbpo/ratio_at_first_use/"
    return {
        f"{prefix}min": min(lowest),
        f"{prefix}mean": sum(totals) / sum(counts),
        f"{prefix}max": max(highest),
        "gbpo/effective_sample_size": sum(totals) ** 2 / (sum(counts) * sum(squares)),
    }
