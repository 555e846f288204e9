"""The actor-critic policies of Stable-Baselines3 with a second critic, u(s), for the median of the returns."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    BaseModel,
    MultiInputActorCriticPolicy,
)
from stable_baselines3.common.torch_layers import create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn

from .fused import FusedNetworks, fuse


class MedianCritic(ActorCriticPolicy):
    """Mixin that adds the median critic u(s) to an actor-critic policy.

    For your own policy write `class Policy(MedianCritic, YourPolicy)`. The median network has the same layers as the
    value network but separate weights, and a separate features extractor if `share_features_extractor=False`.

    The default `net_arch` is the published one: two layers of 256 ReLU units each for policy, value and median. CNN
    policies have no layers after NatureCNN by default, as in Stable-Baselines3.
    """

    default_net_arch: ClassVar[dict[str, list[int]] | None] = {"pi": [256, 256], "vf": [256, 256]}
    fused: FusedNetworks | None = None  # replaces the networks while a rollout is collected and during an update

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        if optimizer_class is torch.optim.Adam and optimizer_kwargs is None:
            # eps is the default of Stable-Baselines3. Fused Adam is four times as fast on a CPU, which pays for the
            # third network
            optimizer_kwargs = {"eps": 1e-5, "fused": True}
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            self.default_net_arch if net_arch is None else net_arch,
            activation_fn,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
            **kwargs,
        )

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)  # before the median critic, so that policy and value get the same weights as in PPO
        layers = self.net_arch.get("vf", []) if isinstance(self.net_arch, dict) else self.net_arch
        self.median_net = nn.Sequential(*create_mlp(self.features_dim, 1, layers, self.activation_fn))
        self.median_features_extractor = (
            self.features_extractor if self.share_features_extractor else self.make_features_extractor()
        )
        if self.ortho_init:
            self.median_net.apply(partial(self.init_weights, gain=np.sqrt(2)))
            self.init_weights(self.median_net[-1], gain=1)
            if not self.share_features_extractor:
                self.median_features_extractor.apply(partial(self.init_weights, gain=np.sqrt(2)))
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def __getstate__(self) -> dict[str, Any]:
        """The state of a copy. The copy runs its own networks, also if it is made during a rollout."""
        return {**super().__getstate__(), "fused": None}

    def evaluate_with_median(
        self, obs: PyTorchObs, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Evaluate actions as `evaluate_actions` does, and the median critic, with the features computed once.

        Args:
            obs: Observations, (B, ...).
            actions: Actions taken, (B, ...).

        Returns:
            v(s), (B, 1); u(s), (B, 1); the log-probability of the actions, (B,); and the entropy, (B,) or None.
        """
        if self.share_features_extractor:
            pi = vf = median = self.extract_features(obs)
        else:
            pi, vf = self.extract_features(obs)
            median = BaseModel.extract_features(self, obs, self.median_features_extractor)
        distribution = self._get_action_dist_from_latent(self.mlp_extractor.forward_actor(pi))
        values = self.value_net(self.mlp_extractor.forward_critic(vf))
        return values, self.median_net(median), distribution.log_prob(actions), distribution.entropy()

    def predict_medians(self, obs: PyTorchObs) -> torch.Tensor:
        """Estimate the median of the returns.

        Args:
            obs: Observations, (B, ...).

        Returns:
            u(s), (B, 1).
        """
        return self.median_net(BaseModel.extract_features(self, obs, self.median_features_extractor))

    def fuse(self, with_median: bool) -> FusedNetworks | None:
        """The policy, the value and, on request, the median network as one; None if this policy cannot be fused."""
        return None


class MlpPolicy(MedianCritic):
    """Policy, value and median networks for vector observations."""

    def fuse(self, with_median: bool) -> FusedNetworks | None:
        """The policy, the value and, on request, the median network as one; None if this policy cannot be fused."""
        if type(self) is not MlpPolicy:  # a derived class may compute something else
            return None
        policy = nn.Sequential(self.mlp_extractor.policy_net, self.action_net)
        value = nn.Sequential(self.mlp_extractor.value_net, self.value_net)
        return fuse(self, [policy, value, self.median_net] if with_median else [policy, value])

    def forward(
        self, obs: torch.Tensor, deterministic: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sample actions, or take the likeliest ones, with v(s) and the log-probability of the actions."""
        if self.fused is None or deterministic:
            return super().forward(obs, deterministic)
        return self.fused.act(obs)

    def evaluate_actions(
        self, obs: PyTorchObs, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Evaluate actions: v(s), their log-probability and the entropy."""
        if self.fused is None or not self.training:
            return super().evaluate_actions(obs, actions)
        return self.fused.evaluate(obs, actions)

    def evaluate_with_median(
        self, obs: PyTorchObs, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Evaluate actions as `evaluate_actions` does, and the median critic."""
        if self.fused is None or not self.training:
            return super().evaluate_with_median(obs, actions)
        return self.fused.evaluate(obs, actions)


class CnnPolicy(MedianCritic, ActorCriticCnnPolicy):
    """Policy, value and median networks for images."""

    default_net_arch = None


class MultiInputPolicy(MedianCritic, MultiInputActorCriticPolicy):
    """Policy, value and median networks for dictionaries of observations."""
