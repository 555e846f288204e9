"""`GBPOTrainer`: TRL's GRPOTrainer with the bounded-ratio loss in place of the clipped one."""

import textwrap
from typing import Any

import torch
from accelerate.logging import get_logger
from trl.trainer.utils import get_config_model_id

from ..core import bounded_ratio_loss, group_median, group_target_ratio, target_ratio
from .base import BaseTrainer
from .config import GBPOConfig
from .metrics import Pool
from .passes.layout import PassesGRPOTrainer

logger = get_logger(__name__)


class GBPOTrainer(PassesGRPOTrainer, BaseTrainer):
    """Group-relative Bounded Policy Optimization (arXiv 2604.18578), on everything that TRL's GRPOTrainer does.

    Used like `trl.GRPOTrainer`, with a `GBPOConfig`. It overrides three methods: `_calculate_rewards` keeps the rewards
    of all ranks, `_scored_completions` adds the target ratio of each completion, and `_compute_loss` regresses the
    probability ratio towards it: `|A| · |ρ - ρ*|`. Generation, rewards, KL to the reference, entropy bonus, masks,
    importance weights of vLLM, logging, saving and resuming are TRL's. Rewards with `votes` are given them as
    `VotingGRPOTrainer` does, and groups without signal can be drawn anew (`ResamplingGRPOTrainer`); see `BaseTrainer`.
    Padding and rows without signal are not run; see `PassesGRPOTrainer`.

    Example:

    ```python
    from datasets import Dataset
    from gbpo import GBPOConfig, GBPOTrainer


    def shorter(completions, **kwargs):
        return [-float(len(completion)) for completion in completions]


    trainer = GBPOTrainer(
        model="Qwen/Qwen2.5-0.5B-Instruct",
        reward_funcs=shorter,
        args=GBPOConfig(output_dir="runs/shorter", epsilon=0.3, num_iterations=4),
        train_dataset=Dataset.from_dict({"prompt": ["The sky is", "The sun is"]}),
    )
    trainer.train()
    ```
    """

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
                f"GBPOTrainer takes a GBPOConfig, got {type(args).__name__}: it has no target_baseline. Build the "
                "arguments with GBPOConfig(...), which accepts every field of GRPOConfig."
            )
        super().__init__(model, reward_funcs, args, *others, **kwargs)
        self.trim_padding, self.pack_rows, self.share_prompts = args.trim_padding, args.pack_rows, args.share_prompts
        self._pools = {"train": Pool(), "eval": Pool()}
        self._rewards_per_func = torch.empty(0, 0)  # (B_global, n_funcs), of the batch being scored
        for hazard in args.hazards():
            logger.warning(hazard)

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        self._rewards_per_func = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        return self._rewards_per_func

    def _scored_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._scored_completions(inputs)
        scored = ~self._rewards_per_func.isnan().all(dim=1)  # (B_global,)
        advantages = self.accelerator.gather(output["advantages"])  # (B_global,); groups may span ranks
        target, centred = self._targets(advantages, scored)
        self._log_targets(target[scored], centred[scored], advantages[scored])
        local = slice(
            self.accelerator.process_index * len(inputs),
            (self.accelerator.process_index + 1) * len(inputs),
        )
        # (B,) tensors travel with the batch through TRL's shuffle and split
        output["target_ratio"], output["centred_advantages"] = target[local], centred[local]
        return output

    def _targets(self, advantages: torch.Tensor, scored: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Target ratio ρ* and centred signal Ã of every completion of the global batch, each (B_global,).

        Inside a group the advantage is an increasing affine function of the reward, whatever `scale_rewards` and
        `multi_objective_aggregation`: it has the reward's order and ties, and `(r - median) / std = A - median(A)`.
        Completions that no reward function scored have A = 0 but no say in the median: they get ρ* = 1 and Ã = 0.
        """
        num_generations = self.num_generations if self.model.training else self.num_generations_eval
        bounds = {
            "epsilon_low": self.epsilon_low,
            "epsilon_high": self.epsilon_high,
            "temperature": self.args.target_temperature,
        }
        if self.args.target_baseline == "mean":  # TRL has subtracted it
            return torch.where(scored, target_ratio(advantages, **bounds), 1.0), advantages
        signal = advantages.masked_fill(~scored, torch.nan)
        target = group_target_ratio(
            signal, num_generations, baseline=self.args.target_baseline, scale_rewards="none", **bounds
        )
        groups = signal.view(-1, num_generations)
        return target, (groups - group_median(groups)).nan_to_num(nan=0.0).view(-1)

    def _log_targets(self, target: torch.Tensor, centred: torch.Tensor, advantages: torch.Tensor) -> None:
        """Metrics of one generation over the completions that were scored, each argument (N,)."""
        if not target.numel():
            return
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["gbpo/target_ratio_mean"].append(target.mean().item())
        metrics["gbpo/target_ratio_std"].append(target.std(correction=0).item())
        metrics["gbpo/tied_fraction"].append((centred == 0).float().mean().item())
        pulls_against = torch.sign(target - 1) != torch.sign(advantages)
        metrics["gbpo/sign_disagreement"].append(pulls_against.float().mean().item())

    def _compute_loss(self, model, inputs):
        mode = "train" if self.model.training else "eval"
        mask = inputs["completion_mask"] * inputs.get("tool_mask", 1)  # (B, T)
        logps, entropies, aux_loss = self._scores(
            model, inputs, compute_entropy=True, compute_aux_loss=self.aux_loss_enabled
        )  # (B, T), (B, T), scalar
        # left out where they equal the current ones
        old_logps = inputs.get("old_per_token_logps")
        if old_logps is None:
            old_logps = inputs["old_per_token_logps"] = logps.detach()
        log_ratio = self._log_ratio(logps, old_logps, mask)  # (B, T), or (B, 1) at sequence level
        target = inputs["target_ratio"].unsqueeze(1)  # (B, 1)
        advantages = inputs["advantages"].unsqueeze(1)  # (B, 1)

        policy_term = bounded_ratio_loss(
            log_ratio,
            target,
            advantages,
            overshoot_slope=self.args.overshoot_slope,
            max_log_ratio=self.args.max_log_ratio,
        )
        entropy_mask = None
        if self.top_entropy_quantile < 1.0:
            entropy_mask = self.get_high_entropy_mask(entropies, mask, 1 - self.top_entropy_quantile)
        weights = self._token_weights(inputs, logps, old_logps, mask, entropy_mask)  # (B, T)
        per_token_loss = policy_term * weights
        if self.beta != 0.0:
            per_token_kl = self._per_token_kl(logps, inputs["ref_per_token_logps"], log_ratio)
            per_token_loss = per_token_loss + self.beta * per_token_kl

        row_weights = inputs if "row_weights" in inputs else self._row_weights(inputs)
        accumulation = self.current_gradient_accumulation_steps if mode == "train" else 1.0
        share = 1 / accumulation
        if self.loss_type == "dapo" and mode == "train":  # whose count spans the whole generation batch
            share = self.args.steps_per_generation / accumulation
        loss = share * (row_weights["row_weights"] @ (per_token_loss * mask).sum(1))
        if self._entropy_bonus_enabled:
            self._pools[mode].add_sum("policy_loss", loss.detach())
            bonus_mask, bonus_weights = mask, row_weights["entropy_weights"]
            if entropy_mask is not None:
                bonus_mask = mask * entropy_mask
                bonus_weights = (1 / bonus_mask.sum().clamp(min=1.0)).expand(len(mask))
            mean_entropy = bonus_weights @ (entropies * bonus_mask).sum(1)
            loss = loss - self._applied_entropy_coef() * mean_entropy / accumulation
            if mode == "train":
                self._update_entropy_coef(entropies.detach(), bonus_mask)
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * aux_loss / accumulation
            self._metrics[mode]["aux_loss"].append(self.accelerator.gather_for_metrics(aux_loss).mean().item())

        with torch.no_grad():
            means = {"entropy": (entropies, mask)}
            if self.beta != 0.0:
                means["kl"] = (per_token_kl, mask)
            ratio = self._ratio(log_ratio)
            means |= self._ratio_means(ratio, policy_term, mask, weights, inputs)
            means |= self._clip_means(mode, ratio, advantages, mask)
            for name, (values, value_weights) in means.items():
                self._pools[mode].add_mean(name, values, value_weights)
            if mode == "eval" or self.accelerator.sync_gradients:
                for name, value in self._pools[mode].collect(self.accelerator).items():
                    self._metrics[mode][name].append(value)
        return loss

    def _ratio(self, log_ratio: torch.Tensor) -> torch.Tensor:
        return log_ratio.clamp(-self.args.max_log_ratio, self.args.max_log_ratio).exp()

    def _token_weights(self, inputs, logps, old_logps, mask, entropy_mask) -> torch.Tensor:
        """What multiplies the policy term besides |A|: off-policy mask, entropy quantile, vLLM ratio; (B, T)."""
        weights = torch.ones_like(logps)
        if self.off_policy_mask_threshold is not None:
            weights = weights * self.get_off_policy_mask(
                advantages=inputs["advantages"].unsqueeze(1),
                per_token_logps=logps,
                sampling_per_token_logps=inputs.get("sampling_per_token_logps", old_logps),
                mask=mask,
                off_policy_threshold=self.off_policy_mask_threshold,
            )  # (B, 1)
        if entropy_mask is not None:
            weights = weights * entropy_mask  # (B, T)
        if self.use_vllm and self.vllm_importance_sampling_correction:
            weights = weights * inputs["importance_sampling_ratio"]  # (B, T) or (B, 1)
        return weights

    def _per_token_kl(self, logps: torch.Tensor, ref_logps: torch.Tensor, log_ratio: torch.Tensor) -> torch.Tensor:
        """k3 estimate of the KL divergence to the reference, times ρ where TRL corrects its bias."""
        difference = ref_logps - logps
        per_token_kl = difference.exp() - difference - 1
        return per_token_kl * self._ratio(log_ratio) if self.args.use_bias_correction_kl else per_token_kl

    def _row_weights(self, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
        """What multiplies the summed loss of each row of a micro-batch under TRL's `loss_type`, and its entropy; (B,).

        They are the normalisers of the micro-batch as TRL draws it, whichever rows are then run together.
        """
        mask = inputs["completion_mask"] * inputs.get("tool_mask", 1)  # (B, T)
        tokens, rows = mask.sum(1), len(mask)
        mean = 1.0 / tokens.sum().clamp(min=1)
        weights = {
            # the mean over the tokens of all ranks and micro-batches
            "dapo": self.accelerator.num_processes / inputs["num_items_in_batch"].clamp(min=1),
            "grpo": 1.0 / (rows * tokens.clamp(min=1)),
            "bnpo": mean,
            "dr_grpo": torch.tensor(1 / (rows * self.max_completion_length), device=mask.device),
        }[self.loss_type]
        return {"row_weights": weights.float().expand(rows), "entropy_weights": mean.float().expand(rows)}

    def _applied_entropy_coef(self) -> float:
        """The coefficient of the entropy bonus; under adaptive control 0 while the entropy is above its target."""
        if self.use_adaptive_entropy and self._last_world_entropy > self.args.entropy_target:
            return 0.0
        return self.entropy_coef

    def _update_entropy_coef(self, entropies: torch.Tensor, mask: torch.Tensor) -> None:
        """At the end of an optimiser step, log the coefficient and let adaptive control move it for the next step.

        The measured entropy is the token mean over all micro-batches and ranks of the step.
        """
        if self.use_adaptive_entropy:
            sums = torch.stack([(entropies * mask).sum(), mask.sum()])
            window = self._entropy_window_stats
            self._entropy_window_stats = sums if window is None else window + sums
            if self.accelerator.sync_gradients:
                total, count = self.accelerator.reduce(self._entropy_window_stats, reduction="sum").tolist()
                self._last_world_entropy = total / max(count, 1.0)
                self._entropy_window_stats = None
                if self._last_world_entropy <= self.args.entropy_target:
                    self.entropy_coef = min(
                        self.entropy_coef + self.args.entropy_coef_delta, self.args.entropy_coef_max
                    )
                else:
                    self.entropy_coef = max(
                        self.entropy_coef - self.args.entropy_coef_delta, self.args.entropy_coef_min
                    )
        if self.accelerator.sync_gradients:
            self._metrics["train"]["entropy_coef"].append(self.entropy_coef)

    def _ratio_means(
        self, ratio: torch.Tensor, policy_term: torch.Tensor, mask: torch.Tensor, weights: torch.Tensor, inputs
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """GBPO's own metrics of one pass, as (values, weights); defined in the README.

        `ratio` and `policy_term` are (B, T), or (B, 1) at sequence level; `mask` and `weights` (B, T).
        """
        weights = weights * mask
        if self.loss_type == "grpo":  # each completion counts once
            weights = weights / mask.sum(-1, keepdim=True).clamp(min=1.0)
        target = inputs["target_ratio"].unsqueeze(1)
        magnitude = inputs["advantages"].unsqueeze(1).abs()
        gain = (target - 1) * inputs["centred_advantages"].unsqueeze(1)
        above, below = ratio > 1 + self.epsilon_high, ratio < 1 - self.epsilon_low
        return {
            "gbpo/ratio_error": ((ratio - target).abs(), weights * magnitude),
            "gbpo/overshoot": (((above & (target > 1)) | (below & (target < 1))).float(), weights),
            "gbpo/improvement_estimate": (gain - policy_term, weights),
        }

    def _clip_means(
        self, mode: str, ratio: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """TRL's `clip_ratio/*`: what GRPO would have clipped at these ratios. GBPO clips nothing."""
        weights = mask if ratio.size(1) > 1 else torch.ones_like(ratio)  # at sequence level each sequence counts once
        low = ((ratio < 1 - self.epsilon_low) & (advantages < 0)).float()
        high = ((ratio > 1 + self.epsilon_high) & (advantages > 0)).float()
        for name, clipped, furthest in (("low_min", low, "amin"), ("high_max", high, "amax")):
            per_sequence = (clipped * weights).sum(1) / weights.sum(1)  # NaN without tokens
            self._pools[mode].add_extreme(f"clip_ratio/{name}", per_sequence, furthest)
        return {
            "clip_ratio/low_mean": (low, weights),
            "clip_ratio/high_mean": (high, weights),
            "clip_ratio/region_mean": (low + high, weights),
        }
