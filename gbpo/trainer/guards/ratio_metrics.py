"""`RatioGRPOTrainer`: TRL's GRPOTrainer that logs how far the policy has moved from the one that sampled."""

import torch

from .finite_steps import FiniteGRPOTrainer

_PERCENTILES = {"p01": 0.01, "p50": 0.50, "p99": 0.99}
_MOST_VALUES = 2**24  # that torch.quantile takes


class RatioGRPOTrainer(FiniteGRPOTrainer):
    """TRL's GRPOTrainer that logs where the probability ratios ρ lie, whichever loss is trained.

    For each optimiser step, over the ρ of its tokens (one for a sequence where `importance_sampling_level` says so):
    `gbpo/outside_bounds`, the share outside [1 - ε_low, 1 + ε_high], and the percentiles `gbpo/ratio_p01`,
    `gbpo/ratio_p50` and `gbpo/ratio_p99`; means over ranks. On the log-probs that `FiniteGRPOTrainer` keeps.
    """

    def compute_loss(self, model, inputs, *args, **kwargs):
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        if self._step_passes and self.accelerator.sync_gradients:
            self._log_ratios()
        return loss

    @torch.no_grad()
    def _log_ratios(self) -> None:
        ratio = torch.cat([self._token_ratios(logps, inputs) for inputs, logps in self._step_passes])  # (N,)
        if not ratio.numel():  # every rank must take part in the sum below
            ratio = torch.ones(1, device=ratio.device)
        outside = (ratio < 1 - self.epsilon_low) | (ratio > 1 + self.epsilon_high)
        levels = torch.tensor([*_PERCENTILES.values()], device=ratio.device)
        sample = ratio[:: -(-ratio.numel() // _MOST_VALUES)]
        values = torch.cat([outside.float().mean().unsqueeze(0), sample.quantile(levels)])
        means = self.accelerator.reduce(values, reduction="mean").tolist()
        for name, value in zip(("outside_bounds", *(f"ratio_{p}" for p in _PERCENTILES)), means, strict=True):
            self._metrics["train"][f"gbpo/{name}"].append(value)

    def _token_ratios(self, logps: torch.Tensor, inputs) -> torch.Tensor:
        """The ρ of the tokens that the policy sampled, (N,), from its log-probs, (B, T)."""
        mask = inputs["completion_mask"] * inputs.get("tool_mask", 1)  # (B, T)
        old_logps = inputs.get("old_per_token_logps")
        log_ratio = self._log_ratio(logps, logps if old_logps is None else old_logps, mask)
        return log_ratio.float().exp().expand(mask.shape)[mask.bool()]

    def _log_ratio(self, logps: torch.Tensor, old_logps: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """log ρ: of each token, (B, T), or its mean over the sequence, (B, 1)."""
        log_ratio = logps - old_logps
        if self.importance_sampling_level == "token":
            return log_ratio
        return (log_ratio * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1.0)
