"""`GBPOTrainer`: the target ratio and the bounded-ratio loss of GBPO on TRL's GRPOTrainer."""

import textwrap
import warnings
from typing import Any

import torch
from trl.trainer.utils import get_config_model_id

from ..core import group_median, group_target_ratio, target_ratio, widened_target_ratio
from ..core.aggregation import row_weights, token_mean
from ..core.losses import probability_ratio, ratio_loss
from .base import BaseTrainer
from .config import GBPOConfig, GBPOHazard
from .metrics import StepMetrics
from .passes.batch import Pass, policy_mask
from .passes.plan import PassPlan
from .passes.speedups import is_aligned


class GBPOTrainer(BaseTrainer):
    """Trainer for Group-relative Bounded Policy Optimization (arXiv 2604.18578), based on TRL's GRPOTrainer.

    Use it like `trl.GRPOTrainer`, with a `GBPOConfig`. It computes a target ratio ρ* for each completion and regresses
    the probability ratio ρ towards ρ* with the loss `|A| · |ρ - ρ*|`. Generation, rewards, KL to the reference, entropy
    bonus, masks, importance weights of vLLM, logging, saving and resuming come from TRL. `BridgeTrainer` lists the
    other additions. `gbpo.get_reward(name)` gives the rewards of this project.

    Example:

    ```python
    from datasets import Dataset
    from gbpo import GBPOConfig, GBPOTrainer


    def shorter(completions, **kwargs):
        return [-float(len(completion)) for completion in completions]


    trainer = GBPOTrainer(
        model="Qwen/Qwen2.5-0.5B-Instruct",
        reward_funcs=shorter,
        args=GBPOConfig(output_dir="runs/shorter", target_baseline="exact", num_iterations=4),
        train_dataset=Dataset.from_dict({"prompt": ["The sky is", "The sun is"]}),
    )
    trainer.train()
    ```
    """

    bounded_loss = True

    _tag_names = ["trl", "gbpo"]
    _name = "GBPO"
    _paper = {
        "title": "Bounded Ratio Reinforcement Learning",
        "id": "2604.18578",
        "citation": textwrap.dedent("""\
            @article{ao2026bounded,
                title        = {{Bounded Ratio Reinforcement Learning}},
                author       = {Ao and Chen and Lee and Wahd and Czarnobai and Fürnstahl and Schölkopf and Krause},
                year         = 2026,
                eprint       = {arXiv:2604.18578}
            }"""),
    }

    def __init__(self, model, reward_funcs=None, args: GBPOConfig | None = None, *others, **kwargs):
        if args is None:
            name = model if isinstance(model, str) else get_config_model_id(model.config)
            args = GBPOConfig(f"{name.split('/')[-1]}-GBPO")
        elif not isinstance(args, GBPOConfig):
            raise TypeError(
                f"GBPOTrainer takes a GBPOConfig, got {type(args).__name__}, which has no target_baseline. Build the "
                "arguments with GBPOConfig(...), which accepts every field of GRPOConfig."
            )
        super().__init__(model, reward_funcs, args, *others, **kwargs)
        self._step_metrics = {"train": StepMetrics(), "eval": StepMetrics()}
        window = min(args.steps_per_generation, args.gradient_accumulation_steps)
        self.pass_plan = PassPlan(
            self.accelerator,
            window=window if is_aligned(args) else 1,
            budget=args.max_tokens_per_micro_batch,
            micro_batch_size=args.per_device_train_batch_size,
            arrange="arrange_rows" in self.speedups,
            skip="skip_zero_signal" in self.speedups,
            trim="trim_padding" in self.speedups,
            pack="pack_rows" in self.speedups,
            few_shapes=self._needs_few_shapes,
        )
        for hazard in args.hazards():
            warnings.warn(hazard, GBPOHazard, stacklevel=2)

    # --- the target

    def add_targets(self, batch: dict[str, Any], advantages: torch.Tensor) -> dict[str, Any]:
        target, centred = self.targets(advantages)
        scored = ~advantages.isnan()
        self._log_targets(target[scored], centred[scored], advantages[scored])
        rows = len(batch["advantages"])
        local = slice(self.accelerator.process_index * rows, (self.accelerator.process_index + 1) * rows)
        return batch | {"target_ratio": target[local], "centred_advantages": centred[local]}

    def targets(self, advantages: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Target ratio ρ* and centred signal Ã of every completion of the global batch, each (B_global,).

        The targets are computed from the advantages. Within a group the advantage is an increasing affine function of
        the reward, whatever `scale_rewards` and `multi_objective_aggregation` are. So advantages have the same order
        and ties as rewards, and `(r - median) / std = A - median(A)`.

        Args:
            advantages: A, (B_global,). NaN marks a completion that no reward function scored. The median leaves this
                completion out, and the completion gets ρ* = 1 and Ã = 0.
        """
        num_generations = self.num_generations if self.model.training else self.num_generations_eval
        bounds = {
            "epsilon_low": self.epsilon_low,
            "epsilon_high": self.epsilon_high,
            "temperature": self.args.target_temperature,
        }
        if self.args.target_baseline == "mean":  # TRL has subtracted the mean already
            return target_ratio(advantages, **bounds).nan_to_num(nan=1.0), advantages.nan_to_num(nan=0.0)
        target = group_target_ratio(
            advantages, num_generations, baseline=self.args.target_baseline, scale_rewards="none", **bounds
        )
        groups = advantages.view(-1, num_generations)
        return target, (groups - group_median(groups)).nan_to_num(nan=0.0).view(-1)

    def _log_targets(self, target: torch.Tensor, centred: torch.Tensor, advantages: torch.Tensor) -> None:
        """Log target metrics of one generation. Each argument holds the N scored completions, (N,)."""
        if not target.numel():
            return
        self._log("gbpo/target_ratio_mean", target.mean().item())
        self._log("gbpo/target_ratio_std", target.std(correction=0).item())
        self._log("gbpo/tied_fraction", (centred == 0).float().mean().item())
        pulls_against = torch.sign(target - 1) != torch.sign(advantages)
        self._log("gbpo/sign_disagreement", pulls_against.float().mean().item())

    # --- the loss

    def as_pass(self, batch: dict[str, Any]) -> Pass:
        tokens = policy_mask(batch).sum(1)  # (B,)
        weights = row_weights(
            self.loss_type,
            tokens,
            tokens_of_all_ranks=batch["num_items_in_batch"],
            num_processes=self.accelerator.num_processes,
            max_completion_length=self.max_completion_length,
        )
        return Pass.from_batch(batch, weights, token_mean(tokens).float().expand(len(tokens)))

    def pass_loss(self, one, logps, entropies, aux_loss):
        mode = "train" if self.model.training else "eval"
        mask = one.policy_mask  # (B, T)
        log_ratio = self.log_ratio(logps, one)  # (B, T), or (B, 1) at sequence level
        ratio = probability_ratio(log_ratio, self.args.max_log_ratio)
        target = self._widened(one.target_ratio, logps, one)  # (B, 1), or (B, T) with a bound_exponent
        advantages = one.advantages.unsqueeze(1)  # (B, 1)

        policy_term = ratio_loss(ratio, target, advantages, overshoot_slope=self.args.overshoot_slope)
        entropy_mask = None
        if self.top_entropy_quantile < 1.0:
            entropy_mask = self.get_high_entropy_mask(entropies, mask, 1 - self.top_entropy_quantile)
        weights = self._token_weights(one, logps, entropy_mask)  # (B, T)
        per_token_loss = policy_term * weights
        if self.beta != 0.0:
            per_token_kl = self._per_token_kl(logps, one.ref_logps, ratio)
            per_token_loss = per_token_loss + self.beta * per_token_kl

        accumulation = self.current_gradient_accumulation_steps if mode == "train" else 1.0
        share = 1 / accumulation
        if self.loss_type == "dapo" and mode == "train":  # DAPO counts the tokens of the whole generation batch
            share = self.args.steps_per_generation / accumulation
        loss = share * (one.row_weights @ (per_token_loss * mask).sum(1))
        metrics = self._step_metrics[mode]
        if self._entropy_bonus_enabled:
            metrics.add_sum("policy_loss", loss.detach())
            bonus_mask, bonus_weights = mask, one.entropy_weights
            if entropy_mask is not None:
                bonus_mask = mask * entropy_mask
                bonus_weights = (1 / bonus_mask.sum().clamp(min=1.0)).expand(len(mask))
            mean_entropy = bonus_weights @ (entropies * bonus_mask).sum(1)
            loss = loss - self._applied_entropy_coef() * mean_entropy / accumulation
            if mode == "train" and self.use_adaptive_entropy:
                entropies_now = entropies.detach()
                sums = torch.stack([(entropies_now * bonus_mask).sum(), bonus_mask.sum()])
                window = self._entropy_window_stats
                self._entropy_window_stats = sums if window is None else window + sums
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * aux_loss / accumulation
            metrics.add_mean("aux_loss", aux_loss.detach().view(1), torch.ones(1, device=loss.device))

        with torch.no_grad():
            ratio = ratio.detach()
            means = {"entropy": (entropies, mask)}
            if self.beta != 0.0:
                means["kl"] = (per_token_kl, mask)
            means |= self._ratio_means(ratio, target, policy_term, weights, logps, one)
            means |= self._clip_means(metrics, ratio, advantages, mask)
            for name, (values, value_weights) in means.items():
                metrics.add_mean(name, values, value_weights)
        return loss, ratio

    def _widened(self, target: torch.Tensor, logps: torch.Tensor, one: Pass) -> torch.Tensor:
        """Ratios between the bounds, (B,), moved to the bounds of each token: (B, 1), or (B, T) if those differ."""
        old_logps = self.anchor.old_logps(logps, one.old_logps, one.sampling_logps)
        exponent = self.args.bound_exponent
        return widened_target_ratio(target.unsqueeze(1), self.at_level(old_logps, one), exponent=exponent)

    def finish_step(self) -> None:
        mode = "train" if self.model.training else "eval"
        for name, value in self._step_metrics[mode].collect(self.accelerator).items():
            self._log(name, value)
        if self._entropy_bonus_enabled and mode == "train":
            self._update_entropy_coef()

    def _token_weights(self, one: Pass, logps: torch.Tensor, entropy_mask: torch.Tensor | None) -> torch.Tensor:
        """Product of the off-policy mask, the entropy mask and vLLM's importance ratio, (B, T)."""
        weights = torch.ones_like(logps)
        old_logps = self.anchor.old_logps(logps, one.old_logps, one.sampling_logps)
        if self.off_policy_mask_threshold is not None:
            weights = weights * self.get_off_policy_mask(
                advantages=one.advantages.unsqueeze(1),
                per_token_logps=logps,
                sampling_per_token_logps=old_logps if one.sampling_logps is None else one.sampling_logps,
                mask=one.policy_mask,
                off_policy_threshold=self.off_policy_mask_threshold,
            )  # (B, 1)
        if entropy_mask is not None:
            weights = weights * entropy_mask  # (B, T)
        if self.anchor.mode is not None and one.sampling_logps is not None:
            importance, _ = self.anchor.importance_ratio(old_logps, one.sampling_logps, one.policy_mask)
            weights = weights * importance  # (B, T) or (B, 1)
        return weights

    def _per_token_kl(self, logps: torch.Tensor, ref_logps: Any, ratio: torch.Tensor) -> torch.Tensor:
        """k3 estimate of the KL divergence to the reference. `use_bias_correction_kl` multiplies it by ρ, as in TRL."""
        difference = ref_logps - logps
        per_token_kl = difference.exp() - difference - 1
        return per_token_kl * ratio if self.args.use_bias_correction_kl else per_token_kl

    def _applied_entropy_coef(self) -> float:
        """The entropy bonus's coefficient. With `use_adaptive_entropy` it is 0 while entropy exceeds its target."""
        if self.use_adaptive_entropy and self._last_world_entropy > self.args.entropy_target:
            return 0.0
        return self.entropy_coef

    def _update_entropy_coef(self) -> None:
        """Log the entropy coefficient. With `use_adaptive_entropy`, first adapt it to the entropy of this step.

        This is the mean entropy of the tokens of all passes and ranks.
        """
        if self.use_adaptive_entropy:
            total, count = self.accelerator.reduce(self._entropy_window_stats, reduction="sum").tolist()
            self._last_world_entropy = total / max(count, 1.0)
            self._entropy_window_stats = None
            step = self.args.entropy_coef_delta
            if self._last_world_entropy <= self.args.entropy_target:
                self.entropy_coef = min(self.entropy_coef + step, self.args.entropy_coef_max)
            else:
                self.entropy_coef = max(self.entropy_coef - step, self.args.entropy_coef_min)
        self._log("entropy_coef", self.entropy_coef)

    # --- metrics of a pass, as values and weights; metric_definitions.py defines each metric

    def _ratio_means(
        self,
        ratio: torch.Tensor,
        target: torch.Tensor,
        policy_term: torch.Tensor,
        weights: torch.Tensor,
        logps: torch.Tensor,
        one: Pass,
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """GBPO's own metrics. `ratio` and `policy_term` are (B, T), or (B, 1) at sequence level; `weights` (B, T)."""
        weights = weights * one.policy_mask
        if self.loss_type == "grpo":  # each completion counts once
            weights = weights / one.policy_mask.sum(-1, keepdim=True).clamp(min=1.0)
        magnitude = one.advantages.unsqueeze(1).abs()
        gain = (target - 1) * one.centred_advantages.unsqueeze(1)
        lowest, highest = (
            self._widened(torch.full_like(one.target_ratio, bound), logps, one)
            for bound in (1 - self.epsilon_low, 1 + self.epsilon_high)
        )
        above, below = ratio > highest, ratio < lowest
        return {
            "gbpo/ratio_error": ((ratio - target).abs(), weights * magnitude),
            "gbpo/overshoot": (((above & (target > 1)) | (below & (target < 1))).float(), weights),
            "gbpo/improvement_estimate": (gain - policy_term, weights),
        }

    def _clip_means(
        self, metrics: StepMetrics, ratio: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """TRL's metrics `clip_ratio/*`: the share of ratios that GRPO would clip. GBPO clips none."""
        weights = mask
        if self.importance_sampling_level == "sequence":  # each sequence counts once
            weights = mask.any(1, keepdim=True).to(ratio.dtype)
        low = ((ratio < 1 - self.epsilon_low) & (advantages < 0)).float()
        high = ((ratio > 1 + self.epsilon_high) & (advantages > 0)).float()
        for name, clipped, furthest in (("low_min", low, "amin"), ("high_max", high, "amax")):
            per_sequence = (clipped * weights).sum(1) / weights.sum(1)  # NaN without tokens
            metrics.add_extreme(f"clip_ratio/{name}", per_sequence, furthest)
        return {
            "clip_ratio/low_mean": (low, weights),
            "clip_ratio/high_mean": (high, weights),
            "clip_ratio/region_mean": (low + high, weights),
        }
