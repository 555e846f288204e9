"""Policy, value and median network of an MLP policy as one batched network.

The networks of control are small, so an update spends its time on the overhead of operations, not on arithmetic. The
batched network needs a third of the operations: layer k of all networks is one matrix product, and Adam moves one
vector. Weights and optimiser are copied in at the start of an update and out at its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import CategoricalDistribution, DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn
from torch.nn import functional

_ACTIVATIONS: dict[type[nn.Module], Callable[[torch.Tensor], torch.Tensor]] = {
    nn.Tanh: torch.tanh,
    nn.ReLU: torch.relu,
    nn.ELU: functional.elu,
}
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class FusedNetworks:
    """N networks with equal hidden layers, the first of which is the policy.

    Args:
        networks: The linear layers of each network. The output layers may differ in width; the narrower ones are padded
            with zeros, which receive no gradient.
        activation: The function between the layers.
        log_std: Logarithm of the standard deviation of the actions, (A,); None for discrete actions.
    """

    def __init__(
        self,
        networks: Sequence[Sequence[nn.Linear]],
        activation: Callable[[torch.Tensor], torch.Tensor],
        log_std: nn.Parameter | None,
    ):
        self._levels = list(zip(*networks, strict=True))
        self._activation = activation
        self._log_std = log_std
        tensors = self._fuse(lambda parameter: parameter.detach())
        self._shapes = [tensor.shape for tensor in tensors]
        self._vector = torch.cat([tensor.reshape(-1) for tensor in tensors])
        self._tensors = [tensor.requires_grad_() for tensor in self._split(self._vector)]
        self._layers = list(zip(self._tensors[0::2], self._tensors[1::2], strict=False))  # without log_std

    def act(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sample actions as `ActorCriticPolicy.forward` does, from the same random numbers.

        Args:
            observations: (B, D).

        Returns:
            Actions, (B,) or (B, A); v(s), (B, 1); and the log-probability of the actions, (B,).
        """
        outputs, values, *_ = self._forward(observations)
        actions_of = self._distribution(outputs)
        actions = actions_of.sample()
        return actions, values[:, :1], actions_of.log_prob(actions)

    def evaluate(
        self, observations: torch.Tensor, actions: torch.Tensor
    ) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
        """Evaluate actions as `ActorCriticPolicy.evaluate_actions` does.

        Args:
            observations: (B, D).
            actions: (B,) or (B, A).

        Returns:
            The estimates of each critic, (B,); the log-probability of the actions, (B,); and the entropy, (B,).
        """
        outputs, *critics = self._forward(observations)
        actions_of = self._distribution(outputs)
        return [critic[:, 0] for critic in critics], actions_of.log_prob(actions), actions_of.entropy()

    def _forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The padded outputs of each network, (B, O)."""
        hidden = observations.float().expand(len(self._levels[0]), -1, -1)  # (N, B, D)
        for weight, bias in self._layers[:-1]:
            hidden = self._activation(torch.baddbmm(bias, hidden, weight))
        weight, bias = self._layers[-1]
        return torch.baddbmm(bias, hidden, weight).unbind(0)

    def _distribution(self, outputs: torch.Tensor) -> Categorical | Gaussian:
        return Categorical(outputs) if self._log_std is None else Gaussian(outputs, self._tensors[-1])

    def load_optimizer(self, optimizer: torch.optim.Adam) -> None:
        """Start an update with the options and moments of the policy's optimiser."""
        group = optimizer.param_groups[0]
        self._vector.grad = None
        self._optimizer = type(optimizer)([self._vector], **{name: group[name] for name in optimizer.defaults})
        if optimizer.state:
            first = next(iter(optimizer.state.values()))
            self._optimizer.state[self._vector] = {
                name: value.clone()
                if name == "step"
                else torch.cat([t.reshape(-1) for t in self._fuse(lambda p, name=name: optimizer.state[p][name])])
                for name, value in first.items()
            }

    def step(self, loss: torch.Tensor, max_grad_norm: float) -> None:
        """Clip the gradient by its norm over all networks, and move the weights."""
        gradients = torch.autograd.grad(loss, self._tensors)
        gradient = torch.cat([gradient.reshape(-1) for gradient in gradients])
        gradient.mul_((max_grad_norm / (gradient.norm() + 1e-6)).clamp_(max=1.0))
        self._vector.grad = gradient
        self._optimizer.step()

    def write_back(self, optimizer: torch.optim.Adam) -> None:
        """Copy weights, moments and number of steps to the policy and its optimiser.

        Raises:
            ValueError: A weight is not finite.
        """
        if not self._vector.isfinite().all():
            raise ValueError(
                "The update made weights infinite or NaN, so no action can be sampled. Lower learning_rate, or check "
                "that observations and rewards are finite."
            )
        for parameter, value in self._parts(self._vector):
            parameter.data.copy_(value)
        for name, state in self._optimizer.state[self._vector].items():
            for parameter, value in self._parts(self._vector if name == "step" else state):
                optimizer.state[parameter][name] = (state if name == "step" else value).clone()

    def _fuse(self, of: Callable[[nn.Parameter], torch.Tensor]) -> list[torch.Tensor]:
        """`of(parameter)` of all networks, per layer the weights (N, I, O) and biases (N, 1, O), then log_std."""
        tensors = []
        for level in self._levels:
            width = max(layer.out_features for layer in level)
            padding = [(0, width - layer.out_features) for layer in level]
            tensors += [
                torch.stack([functional.pad(of(la.weight).T, pad) for la, pad in zip(level, padding, strict=True)]),
                torch.stack([functional.pad(of(la.bias), pad) for la, pad in zip(level, padding, strict=True)])[:, None],
            ]
        return tensors if self._log_std is None else [*tensors, of(self._log_std)]

    def _split(self, vector: torch.Tensor) -> list[torch.Tensor]:
        sizes = [shape.numel() for shape in self._shapes]
        return [part.view(shape) for part, shape in zip(vector.split(sizes), self._shapes, strict=True)]

    def _parts(self, vector: torch.Tensor) -> Iterator[tuple[nn.Parameter, torch.Tensor]]:
        """Each parameter of the policy with its part of a vector."""
        tensors = iter(self._split(vector))
        for level in self._levels:
            weights, biases = next(tensors), next(tensors)
            for layer, weight, bias in zip(level, weights, biases, strict=True):
                yield layer.weight, weight[:, : layer.out_features].T
                yield layer.bias, bias[0, : layer.out_features]
        if self._log_std is not None:
            yield self._log_std, next(tensors)


class Categorical:
    """Discrete actions with the given logits, (B, A)."""

    def __init__(self, logits: torch.Tensor):
        self._log_probs = logits.log_softmax(-1)

    def sample(self) -> torch.Tensor:
        return torch.multinomial(self._log_probs.exp(), 1, True).squeeze(1)  # the sampler of torch.distributions

    def log_prob(self, actions: torch.Tensor) -> torch.Tensor:
        return self._log_probs.gather(1, actions[:, None]).squeeze(1)

    def entropy(self) -> torch.Tensor:
        return -(self._log_probs.exp() * self._log_probs).sum(-1)


class Gaussian:
    """Independent normal actions with the given means, (B, A), and standard deviations exp(`log_std`), (A,)."""

    def __init__(self, mean: torch.Tensor, log_std: torch.Tensor):
        self._mean, self._log_std = mean, log_std
        self._log_scale = log_std.sum() + len(log_std) * _LOG_SQRT_2PI

    def sample(self) -> torch.Tensor:
        return torch.addcmul(self._mean, torch.randn_like(self._mean), self._log_std.exp())

    def log_prob(self, actions: torch.Tensor) -> torch.Tensor:
        deviation = (actions - self._mean) * (-self._log_std).exp()
        return -self._log_scale.add(deviation.square().sum(-1), alpha=0.5)

    def entropy(self) -> torch.Tensor:
        return (self._log_scale + 0.5 * len(self._log_std)).expand(len(self._mean))


def fuse(policy: ActorCriticPolicy, networks: Sequence[nn.Module]) -> FusedNetworks | None:
    """Fuse the networks of a policy whose class is known.

    Args:
        policy: A policy with separate networks for the actions and for each critic.
        networks: The layers of each network, in order, the policy's first.

    Returns:
        The fused networks, or None if the policy's spaces, layers or optimiser are of another kind.
    """
    space, optimizer = policy.observation_space, policy.optimizer
    linear = [[layer for layer in network.modules() if isinstance(layer, nn.Linear)] for network in networks]
    hidden = [[(layer.in_features, layer.out_features) for layer in layers[:-1]] for layers in linear]
    log_std = policy.log_std if isinstance(policy.action_dist, DiagGaussianDistribution) else None
    parameters = [parameter for layers in linear for layer in layers for parameter in layer.parameters()]
    parameters += [] if log_std is None else [log_std]
    known = (
        isinstance(space, spaces.Box)
        and len(space.shape) == 1
        and type(policy.action_dist) in (CategoricalDistribution, DiagGaussianDistribution)
        and isinstance(policy.features_extractor, FlattenExtractor)
        and policy.activation_fn in _ACTIVATIONS
        and all(layers == hidden[0] for layers in hidden)
        and type(optimizer) is torch.optim.Adam
        and len(optimizer.param_groups) == 1
        and all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in parameters)
        and len({float(optimizer.state[p]["step"]) if p in optimizer.state else 0.0 for p in parameters}) == 1
    )
    return FusedNetworks(linear, _ACTIVATIONS[policy.activation_fn], log_std) if known else None
