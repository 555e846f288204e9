"""BPO, Bounded Policy Optimization, as a Stable-Baselines3 algorithm."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, RolloutBufferSamples, Schedule
from stable_baselines3.common.utils import FloatSchedule, explained_variance
from stable_baselines3.common.vec_env import VecEnv

from ..core import bounded_ratio_loss, median_loss, target_ratio
from .fused import FusedNetworks, FusedUpdate, Update
from .policies import CnnPolicy, MedianCritic, MlpPolicy, MultiInputPolicy

TARGET_BASELINES = ("median", "quantile", "mean")

_SMALLEST_RANGE = 1e-8  # a schedule that ends at 0 is slightly negative in the last rollout


class BPO(PPO):
    """Bounded Policy Optimization: PPO with the bounded-ratio loss and a second critic for the median.

        loss = mean(|A| · |ρ - ρ*|) + vf_coef · mean((R - v)²) + median_coef · mean(softplus(R - u) - ½(R - u))
               - ent_coef · mean(entropy)
        ρ*   = 1 - ε_low + (ε_low + ε_high) · σ(Ã / T)

    Here ρ = π/π_old, A = R - v(s) and Ã = R - u(s). R is the λ-return, which stays fixed during the update. A and Ã are
    computed from the current critics at each minibatch. No gradient of the policy term reaches the critics.

    The class accepts every argument of `stable_baselines3.PPO`. The defaults are the published ones, including the
    networks (`gbpo.control.policies`).

    Departs from the paper: the log-ratio is clamped to ± 20, and its gradient is 0 beyond. `target_baseline`,
    `clip_range_high`, `clip_range_vf` and `normalize_advantage` are additions.

    Args:
        policy: `"MlpPolicy"`, `"CnnPolicy"`, `"MultiInputPolicy"`, or a class derived from
            `gbpo.control.policies.MedianCritic`.
        env: A Gymnasium environment, its id, or a `VecEnv`.
        learning_rate: A number, or a function of the remaining progress, which falls from 1 to 0.
        n_steps: Steps per environment in a rollout.
        batch_size: Samples per minibatch.
        n_epochs: Passes over a rollout.
        gamma: Discount factor.
        gae_lambda: λ of the λ-return.
        clip_range: ε_low, and ε_high unless that is given, in (0, 1]. The bounds of the ratio are 1 - ε_low and
            1 + ε_high. A number, or a function of the remaining progress that may end at 0, where all targets are 1.
        clip_range_vf: Largest change of v(s) in one iteration, as in PPO; None for no limit.
        normalize_advantage: Normalise A over each minibatch, as in PPO. Ã is not normalised.
        ent_coef: Weight of the entropy.
        vf_coef: Weight of the value loss.
        max_grad_norm: Gradient clipping threshold, for the norm over all parameters.
        clip_range_high: ε_high > 0; None for the same value as `clip_range`.
        median_coef: Weight of the median loss.
        temperature: T ≥ 0, in the unit of returns. 0 makes ρ* a step function of the sign of Ã.
        target_baseline: The baseline in Ã. `"median"`: the published median critic u(s). `"quantile"`: u(s) estimates
            the ε_high / (ε_low + ε_high) quantile, the exact baseline for unequal bounds. `"mean"`: v(s), so Ã = A.
        fused: Run policy, value and median network as one, which makes small networks twice as fast. Applies to
            `"MlpPolicy"` with vectors as observations, vectors or Discrete as actions, the same hidden layers in all
            networks, Tanh or ReLU, Adam, and no hooks; everything else runs as in PPO. Write False if a callback
            changes weights during a rollout with an optimiser or through `.data`.
        ppo_options: Further arguments of `stable_baselines3.PPO`.

    Raises:
        ValueError: A range, temperature, weight or baseline is invalid, or the policy has no median critic.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }
    policy: MedianCritic
    rollout_buffer: RolloutBuffer

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        n_steps: int = 2048,
        batch_size: int = 64,
        n_epochs: int = 10,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float | Schedule = 0.3,
        clip_range_vf: float | Schedule | None = None,
        normalize_advantage: bool = False,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 1.0,
        *,
        clip_range_high: float | Schedule | None = None,
        median_coef: float = 0.5,
        temperature: float = 1e-3,
        target_baseline: str = "median",
        fused: bool = True,
        **ppo_options: Any,
    ):
        self.clip_range_high: Any = clip_range_high
        self.median_coef = median_coef
        self.temperature = temperature
        self.target_baseline = target_baseline
        self.fused = fused
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            batch_size=batch_size,
            n_epochs=n_epochs,
            gamma=gamma,
            gae_lambda=gae_lambda,
            clip_range=clip_range,
            clip_range_vf=clip_range_vf,
            normalize_advantage=normalize_advantage,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            **ppo_options,
        )

    def _setup_model(self) -> None:
        if not issubclass(self.policy_class, MedianCritic):
            raise ValueError(
                f"policy={self.policy_class.__name__} has no median critic, which the target ratio needs. Write "
                "'MlpPolicy', or derive a class: class Policy(gbpo.control.policies.MedianCritic, YourPolicy)."
            )
        self._check_options()
        self.clip_range = FloatSchedule(self.clip_range)
        if self.clip_range_high is not None:
            self.clip_range_high = FloatSchedule(self.clip_range_high)
        super()._setup_model()

    def _check_options(self) -> None:
        low, high = self._bounds(1.0)
        if not 0.0 < low <= 1.0:
            raise ValueError(
                f"clip_range={low} puts the lower bound 1 - clip_range of the probability ratio outside [0, 1). Write "
                "a value in (0, 1], for example 0.3."
            )
        if not 0.0 < high < math.inf:
            raise ValueError(
                f"clip_range_high={high} puts the upper bound 1 + clip_range_high of the probability ratio outside "
                "(1, ∞), so no probability could rise. Write a positive number, or None to use clip_range."
            )
        if not 0.0 <= self.temperature < math.inf:
            raise ValueError(
                f"temperature={self.temperature} gives no valid target ratio, because the centred return is divided by "
                "it. Write 0 for a hard target, or a positive number, for example 1e-3."
            )
        if not 0.0 <= self.median_coef < math.inf:
            raise ValueError(
                f"median_coef={self.median_coef} would increase the error of the median critic, or make the loss NaN. "
                "Write a number ≥ 0, for example 0.5."
            )
        if self.target_baseline not in TARGET_BASELINES:
            raise ValueError(
                f"target_baseline={self.target_baseline!r} is unknown, so no target can be computed. Write one of "
                f"{', '.join(TARGET_BASELINES)}."
            )

    def train(self) -> None:
        """Update the policy and the critics on the last rollout."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        epsilon_low, epsilon_high = self._epsilons()
        losses: list[MinibatchLoss] = []
        close = True
        with self._fused_policy(with_median=self.target_baseline != "mean") as networks:
            update = Update(self.policy) if networks is None else FusedUpdate(networks, self.policy.optimizer)
            for epoch in range(self.n_epochs):
                first_of_epoch = len(losses)
                for batch in self._minibatches(networks is not None):
                    losses.append(self.minibatch_loss(batch, epsilon_low, epsilon_high))
                    if self.target_kl is not None:
                        kl = _approx_kl(losses[-1].log_ratio).item()
                        close = kl <= 1.5 * self.target_kl
                        if not close:
                            if self.verbose >= 1:
                                print(f"Early stopping at step {epoch} due to reaching max kl: {kl:.2f}")
                            break
                    update.step(losses[-1].total, self.max_grad_norm)
                self._n_updates += 1
                if not close:
                    break
            update.finish()
        self._log(losses, losses[first_of_epoch:], epsilon_low, epsilon_high)

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """Collect a rollout as PPO does, with the arguments of `PPO.collect_rollouts`."""
        with self._fused_policy(with_median=False):
            return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)

    @contextmanager
    def _fused_policy(self, with_median: bool) -> Iterator[FusedNetworks | None]:
        """Let the policy act and evaluate actions with fused networks, if it can."""
        known = self.fused and type(self).minibatch_loss is BPO.minibatch_loss
        self.policy.fused = self.policy.fuse(with_median) if known else None
        try:
            yield self.policy.fused
        finally:
            self.policy.fused = None

    def _minibatches(self, of_vectors: bool) -> Iterator[RolloutBufferSamples]:
        """The minibatches of one epoch. Those of vectors are cut from one copy of the shuffled rollout."""
        if not of_vectors or type(self.rollout_buffer) is not RolloutBuffer:
            yield from self.rollout_buffer.get(self.batch_size)
            return
        for rollout in self.rollout_buffer.get():
            parts = (tensor.split(self.batch_size) for tensor in rollout)
            yield from (RolloutBufferSamples(*tensors) for tensors in zip(*parts, strict=True))

    def minibatch_loss(self, batch: RolloutBufferSamples, epsilon_low: float, epsilon_high: float) -> MinibatchLoss:
        """Compute the loss of one minibatch and its terms; the class docstring has the formula.

        Args:
            batch: Samples of the rollout buffer, B of them.
            epsilon_low: ε_low; the lower bound of the ratio is 1 - ε_low.
            epsilon_high: ε_high; the upper bound of the ratio is 1 + ε_high.
        """
        actions = batch.actions
        if isinstance(self.action_space, spaces.Discrete):
            actions = actions.long().flatten()
        returns = batch.returns  # (B,)
        evaluate = self.policy.evaluate_actions if self.target_baseline == "mean" else self.policy.evaluate_with_median
        *critics, log_prob, entropy = evaluate(batch.observations, actions)
        values, baseline = critics[0].flatten(), critics[-1].flatten()  # (B, 1) and (B,) would broadcast to (B, B)
        target = target_ratio(
            returns - baseline, epsilon_low=epsilon_low, epsilon_high=epsilon_high, temperature=self.temperature
        )

        error = returns - values
        advantages = error.detach()
        if self.normalize_advantage and len(advantages) > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        log_ratio = log_prob - batch.old_log_prob
        policy_term = bounded_ratio_loss(log_ratio, target, advantages).mean()

        if self.clip_range_vf is not None:
            clip_range_vf = self.clip_range_vf(self._current_progress_remaining)
            error = returns - batch.old_values - (values - batch.old_values).clamp(-clip_range_vf, clip_range_vf)
        value_term = error.square().mean()
        entropy_term = (log_prob if entropy is None else -entropy).mean()

        total = policy_term.add(value_term, alpha=self.vf_coef)
        if self.target_baseline == "mean":
            median_term = torch.zeros_like(value_term)
        else:
            bounds = {"epsilon_low": epsilon_low, "epsilon_high": epsilon_high}
            quantile = bounds if self.target_baseline == "quantile" else {}
            median_term = median_loss(returns, baseline, **quantile).mean()
            total = total.add(median_term, alpha=self.median_coef)
        if self.ent_coef:  # a weight of 0 would still cost a backward pass
            total = total.add(entropy_term, alpha=self.ent_coef)
        return MinibatchLoss(total, policy_term, value_term, median_term, entropy_term, log_ratio.detach(), target)

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "BPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> BPO:
        """Train the agent, with the arguments of `PPO.learn`."""
        self._check_options()  # they may have been set since the agent was made
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def _epsilons(self) -> tuple[float, float]:
        low, high = self._bounds(self._current_progress_remaining)
        return max(low, _SMALLEST_RANGE), max(high, _SMALLEST_RANGE)

    def _bounds(self, progress: float) -> tuple[float, float]:
        """ε_low and ε_high. A later value of `clip_range`, also a number, changes both if none is given for ε_high."""
        low = _schedule("clip_range", self.clip_range)(progress)
        if self.clip_range_high is None:
            return low, low
        return low, _schedule("clip_range_high", self.clip_range_high)(progress)

    def _log(
        self, losses: list[MinibatchLoss], last_epoch: list[MinibatchLoss], epsilon_low: float, epsilon_high: float
    ) -> None:
        terms = torch.stack([torch.stack(loss[1:5]) for loss in losses]).detach().mean(0).tolist()
        for name, term in zip(
            ("policy_gradient_loss", "value_loss", "median_loss", "entropy_loss"), terms, strict=True
        ):
            self.logger.record(f"train/{name}", term)
        ratio = torch.cat([loss.log_ratio for loss in losses]).exp()
        outside = (ratio < 1 - epsilon_low) | (ratio > 1 + epsilon_high)
        target = torch.cat([loss.target for loss in losses])
        self.logger.record("train/clip_fraction", outside.float().mean().item())
        self.logger.record("train/target_ratio", target.mean().item())
        self.logger.record("train/ratio_error", (ratio - target).abs().mean().item())
        # the KL divergence of the last epoch and the loss of the last minibatch, as in PPO
        self.logger.record("train/approx_kl", _approx_kl(torch.cat([loss.log_ratio for loss in last_epoch])).item())
        self.logger.record("train/loss", losses[-1].total.item())
        values, returns = self.rollout_buffer.values.flatten(), self.rollout_buffer.returns.flatten()
        self.logger.record("train/explained_variance", explained_variance(values, returns))
        if hasattr(self.policy, "log_std"):
            self.logger.record("train/std", self.policy.log_std.exp().mean().item())
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/clip_range", epsilon_low)
        self.logger.record("train/clip_range_high", epsilon_high)
        if self.clip_range_vf is not None:
            self.logger.record("train/clip_range_vf", self.clip_range_vf(self._current_progress_remaining))

    def _maybe_recommend_cpu(self, mlp_class_name: str = MlpPolicy.__name__) -> None:
        super()._maybe_recommend_cpu(mlp_class_name)


def _schedule(name: str, value: Any) -> Schedule:
    try:
        return FloatSchedule(value)
    except AssertionError:
        raise ValueError(
            f"{name}={value!r} is neither a number nor a function of the remaining progress, so the ratio would have "
            "no bound. Write a number, for example 0.3."
        ) from None


class MinibatchLoss(NamedTuple):
    """The loss of one minibatch and its terms.

    Args:
        total: The loss to minimise, ().
        policy: Mean of |A| · |ρ - ρ*|, ().
        value: Mean of (R - v)², ().
        median: Mean of the median loss, (); 0 if there is no median critic.
        entropy: Minus the mean entropy, ().
        log_ratio: log ρ of each sample, (B,), without gradient.
        target: ρ* of each sample, (B,).
    """

    total: torch.Tensor
    policy: torch.Tensor
    value: torch.Tensor
    median: torch.Tensor
    entropy: torch.Tensor
    log_ratio: torch.Tensor
    target: torch.Tensor


def _approx_kl(log_ratio: torch.Tensor) -> torch.Tensor:
    """Estimate KL(π_old ‖ π) as the mean of ρ - 1 - log ρ (http://joschu.net/blog/kl-approx.html)."""
    return (log_ratio.exp() - 1 - log_ratio).mean()
