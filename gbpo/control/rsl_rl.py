"""BPO for rsl_rl, the trainer of Isaac Lab and mjlab.

To use it, write `class_name: gbpo.control.rsl_rl:BPO` in the `algorithm` section of the runner's configuration.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from rsl_rl.algorithms import PPO
from rsl_rl.models import MLPModel
from rsl_rl.storage import RolloutStorage
from rsl_rl.utils import compile_model

from ..core import bounded_ratio_loss, median_loss, target_ratio

_REFUSED = {
    "rnd_cfg": "the intrinsic reward would not be trained",
    "symmetry_cfg": "no sample would be mirrored",
    "normalize_advantage_per_mini_batch": "the advantages in the loss would not be normalised",
}


class BPO(PPO):
    """Bounded Policy Optimization: rsl_rl's PPO with the bounded-ratio loss and a second critic for the median.

    The loss is the same as in `gbpo.control.BPO` with equal bounds. The median critic starts as a copy of the critic
    and reads the same observations.

    Departs from the paper: the log-ratio is clamped to ± 20, and its gradient is 0 beyond.

    Departs from the authors' rsl_rl code, but not from the paper: the returns stay fixed over the epochs, and Ã / T is
    not clamped to ± 10.

    Args:
        actor: Model of the policy.
        critic: Model of the value v(s).
        storage: Storage of the rollouts.
        num_learning_epochs: Passes over a rollout.
        num_mini_batches: Minibatches per pass.
        clip_param: ε, in (0, 1].
        temperature: T ≥ 0, in the unit of returns.
        median_loss_coef: Weight of the median loss.
        entropy_coef: Weight of the entropy.
        use_clipped_value_loss: Limit the change of v(s) in one iteration, as PPO does by default.
        ppo_options: Further arguments of rsl_rl's PPO.

    Raises:
        ValueError: An option of PPO is not supported, a model is recurrent, or ε or T is invalid.
    """

    def __init__(
        self,
        actor: MLPModel,
        critic: MLPModel,
        storage: RolloutStorage,
        num_learning_epochs: int = 10,
        num_mini_batches: int = 4,
        clip_param: float = 0.2,
        *,
        temperature: float = 0.01,
        median_loss_coef: float = 1.0,
        entropy_coef: float = 0.0,
        use_clipped_value_loss: bool = False,
        **ppo_options: Any,
    ):
        for name, consequence in _REFUSED.items():
            if ppo_options.get(name):
                raise ValueError(f"{name}={ppo_options[name]!r} is not supported by BPO: {consequence}. Remove it.")
        if actor.is_recurrent or critic.is_recurrent:
            raise ValueError(
                f"{type(critic).__name__} is recurrent, but rsl_rl stores hidden states for the actor and one critic "
                "only, so the median critic would have none. Write MLPModel or CNNModel."
            )
        super().__init__(
            actor,
            critic,
            storage,
            num_learning_epochs,
            num_mini_batches,
            clip_param,
            entropy_coef=entropy_coef,
            use_clipped_value_loss=use_clipped_value_loss,
            **ppo_options,
        )
        self._mixed_precision = bool(ppo_options.get("use_mixed_precision"))
        self.temperature = temperature
        self.median_loss_coef = median_loss_coef
        self.median = self._raw_median = copy.deepcopy(self._raw_critic)
        self.optimizer.add_param_group({"params": list(self.median.parameters())})
        target_ratio(torch.zeros(1), **self._bounds)  # raises an error for an invalid ε or T

    @property
    def _bounds(self) -> dict[str, float]:
        return {"epsilon_low": self.clip_param, "epsilon_high": self.clip_param, "temperature": self.temperature}

    def update(self) -> dict[str, float]:
        """Optimise on the stored rollout.

        Returns:
            The mean of each loss by name.
        """
        losses = []
        for batch in self.storage.mini_batch_generator(self.num_mini_batches, self.num_learning_epochs):
            with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self._mixed_precision):
                losses.append(self.minibatch_losses(batch))
            surrogate, value, median, entropy = losses[-1]
            if self.schedule == "adaptive" and self.desired_kl is not None:
                self._adapt_learning_rate(batch.old_distribution_params)
            loss = (
                surrogate + self.value_loss_coef * value + self.median_loss_coef * median - self.entropy_coef * entropy
            )
            self.optimizer.zero_grad()
            loss.backward()
            if self.is_multi_gpu:
                self.reduce_parameters()
            parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
            self.optimizer.step()
        observations = self.storage.observations.flatten(0, 1)
        for model in (self.actor, self.critic, self.median):
            model.update_normalization(observations)
        self.storage.clear()
        means = torch.stack([torch.stack(terms) for terms in losses]).detach().mean(0).tolist()
        return dict(zip(("surrogate", "value", "median", "entropy"), means, strict=True))

    def minibatch_losses(self, batch: RolloutStorage.Batch) -> tuple[torch.Tensor, ...]:
        """Compute the terms of the loss on a minibatch.

        Args:
            batch: Samples of the storage, B of them.

        Returns:
            The means of |A| · |ρ - ρ*|, of (R - v)², of the median loss and of the entropy, each ().
        """
        self.actor(batch.observations, stochastic_output=True)  # stores the distribution that is used below
        log_ratio = self.actor.get_output_log_prob(batch.actions) - batch.old_actions_log_prob.squeeze(-1)
        returns = batch.returns.squeeze(-1)  # (B,)
        values, medians = (model(batch.observations).squeeze(-1) for model in (self.critic, self.median))
        target = target_ratio(returns - medians, **self._bounds)
        surrogate = bounded_ratio_loss(log_ratio, target, returns - values)
        value = (returns - values).square()
        if self.use_clipped_value_loss:
            before = batch.values.squeeze(-1)
            clipped = before + (values - before).clamp(-self.clip_param, self.clip_param)
            value = torch.max(value, (returns - clipped).square())
        terms = (surrogate, value, median_loss(returns, medians), self.actor.output_entropy)
        return tuple(term.mean() for term in terms)

    def _adapt_learning_rate(self, old_distribution_params: tuple[torch.Tensor, ...]) -> None:
        """Keep the KL divergence to the old policy near `desired_kl`, by rsl_rl's own rule."""
        with torch.no_grad():
            now = self.actor.output_distribution_params
            mean_kl = self.actor.get_kl_divergence(old_distribution_params, now).mean()
            if self.is_multi_gpu:  # the same KL divergence, and so the same learning rate, in all processes
                self._average(mean_kl)
        kl = mean_kl.item()
        if kl > self.desired_kl * 2.0:
            self.learning_rate = max(1e-5, self.learning_rate / 1.5)
        elif 0.0 < kl < self.desired_kl / 2.0:
            self.learning_rate = min(1e-2, self.learning_rate * 1.5)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate

    def broadcast_parameters(self) -> None:
        """Give the networks of the first process to all processes."""
        super().broadcast_parameters()
        for tensor in self._raw_median.state_dict().values():
            torch.distributed.broadcast(tensor, src=0)

    def reduce_parameters(self) -> None:
        """Average the gradients over all processes."""
        super().reduce_parameters()
        for parameter in self.median.parameters():
            if parameter.grad is not None:
                self._average(parameter.grad)

    def _average(self, tensor: torch.Tensor) -> None:
        torch.distributed.all_reduce(tensor)
        tensor /= self.gpu_world_size

    def train_mode(self) -> None:
        """Put the networks into training mode."""
        super().train_mode()
        self.median.train()

    def eval_mode(self) -> None:
        """Put the networks into evaluation mode."""
        super().eval_mode()
        self.median.eval()

    def compile(self, mode: str | None = None) -> None:
        """Compile the actor and both critics with `torch.compile`."""
        super().compile(mode)
        self.median = compile_model(self._raw_median, mode)

    def save(self) -> dict:
        """Return the state of all networks and of the optimiser."""
        return {**super().save(), "median_state_dict": self._raw_median.state_dict()}

    def load(self, loaded_dict: dict, load_cfg: dict | None, strict: bool) -> bool:
        """Load a saved state. The median critic is loaded whenever the critic is.

        Raises:
            ValueError: The state has no median critic.
        """
        if load_cfg is None or load_cfg.get("critic"):
            if "median_state_dict" not in loaded_dict:
                raise ValueError(
                    "The checkpoint has no median critic, so BPO did not write it and cannot continue it. Load its "
                    "actor alone: runner.load(path, load_cfg={'actor': True})."
                )
            self._raw_median.load_state_dict(loaded_dict["median_state_dict"], strict=strict)
        return super().load(loaded_dict, load_cfg, strict)
