"""The policy that the probability ratio starts from, and the correction for completions that another policy sampled."""

import math
from dataclasses import dataclass

import torch
from trl import GRPOConfig

ANCHORS = ("trainer", "sampler")


@dataclass(frozen=True)
class Anchor:
    """Chooses π0 in the probability ratio ρ = π / π0, and corrects for the difference between π0 and vLLM's policy μ.

    vLLM and the trainer compute the same model with different kernels, so their log-probs differ by rounding.
    `sampling_dtype` gives transformers such a difference. With `generate_ahead`, μ is also an older policy. With the
    anchor `"trainer"`, π0 is the trainer's policy when the generation is first used, and TRL's importance ratio π0 / μ
    weights the loss. With the anchor `"sampler"`, π0 is μ. Then ρ contains the difference, and no correction is needed.

    Args:
        is_sampler: Whether π0 is μ.
        mode: TRL's `vllm_importance_sampling_mode`; None for no correction.
        low: TRL's `vllm_importance_sampling_clip_min`; None for no limit.
        high: TRL's `vllm_importance_sampling_clip_max`; None for no limit.
    """

    is_sampler: bool = False
    mode: str | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, args: GRPOConfig) -> "Anchor":
        """The anchor in the configuration. A `GRPOConfig`, which has no field for it, gets the trainer's policy."""
        own = getattr(args, "generate_ahead", 0), getattr(args, "sampling_dtype", None)
        if not (args.use_vllm or any(own)):  # the trainer samples from π0 itself
            return cls()
        if getattr(args, "ratio_anchor", "trainer") == "sampler":
            return cls(is_sampler=True)
        if not args.vllm_importance_sampling_correction:
            return cls()
        return cls(
            False,
            args.vllm_importance_sampling_mode,
            args.vllm_importance_sampling_clip_min,
            args.vllm_importance_sampling_clip_max,
        )

    def old_logps(
        self, logps: torch.Tensor, trainer: torch.Tensor | None, sampler: torch.Tensor | None
    ) -> torch.Tensor:
        """Log π0 of each token, (B, T).

        Args:
            logps: Log π, (B, T).
            trainer: Log-probs of the trainer's policy when the generation is first used, (B, T). None if π is this
                policy.
            sampler: Log μ, (B, T), or None. NaN for tokens that vLLM could not score; these tokens get ρ = 1.
        """
        if self.is_sampler and sampler is not None:
            return torch.where(sampler.isnan(), logps.detach(), sampler)
        return logps.detach() if trainer is None else trainer

    def importance_ratio(
        self, trainer: torch.Tensor, sampler: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """TRL's importance ratio π0 / μ of each token, (B, T), or in the sequence modes of each completion, (B, 1).

        Args:
            trainer: Log π0, (B, T).
            sampler: Log μ, (B, T). NaN counts as a ratio of 1.
            mask: Tokens that the policy sampled, (B, T).

        Returns:
            The ratios, not masked. Those outside the limits are 0 (mask modes) or the limit (truncate modes). And
            whether each was outside.
        """
        log_ratio = ((trainer - sampler) * mask).nan_to_num(nan=0.0)
        raw = (log_ratio.sum(-1, keepdim=True) if self.is_by_sequence else log_ratio).exp()
        low, high = -math.inf if self.low is None else self.low, math.inf if self.high is None else self.high
        outside = (raw < low) | (raw > high)
        ratio = raw.masked_fill(outside, 0.0) if str(self.mode).endswith("_mask") else raw.clamp(low, high)
        return ratio, outside

    @property
    def is_by_sequence(self) -> bool:
        """Whether a completion has one importance ratio, and not one for each token."""
        return str(self.mode).startswith("sequence_")
