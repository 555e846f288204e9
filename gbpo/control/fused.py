"""Policy, value and median network of an MLP policy as one batched network.

The networks of control are small, so an update spends its time on the overhead of operations, not on arithmetic. The
batched network needs a third of the operations: layer k of all networks is one matrix product, and Adam moves one
vector. Weights and optimiser are copied in at the start of an update and out at its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import CategoricalDistribution, DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn
from torch.optim.adam import adam

# each with its gradient, computed from the gradient of the output and the output
_ACTIVATIONS: dict[type[nn.Module], tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]]] = {
    nn.Tanh: (torch.tanh, lambda gradient, output: torch.addcmul(gradient, gradient * output, output, value=-1.0)),
    nn.ReLU: (torch.relu, lambda gradient, output: gradient.masked_fill_(output <= 0, 0.0)),
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
        self._activation, self._activation_gradient = activation
        self._log_std = log_std
        self._shapes = []
        for level in self._levels:  # layer k of all networks
            width = max(layer.out_features for layer in level)
            self._shapes += [(len(level), level[0].in_features, width), (len(level), 1, width)]
        if log_std is not None:
            self._shapes.append(log_std.shape)
        size = sum(math.prod(shape) for shape in self._shapes)
        self._vector = torch.zeros(size, device=networks[0][0].weight.device)
        for parameter, part in self._parts(self._vector):
            part.copy_(parameter.detach())
        self._gradient = torch.empty_like(self._vector)
        self._layers, self._fused_log_std = self._layers_of(self._vector)
        if self._fused_log_std is not None:
            self._fused_log_std.requires_grad_()
        self._layer_gradients, self._log_std_gradient = self._layers_of(self._gradient)

    def act(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sample actions as `ActorCriticPolicy.forward` does, from the same random numbers.

        Args:
            observations: (B, D).

        Returns:
            Actions, (B,) or (B, A); v(s), (B, 1); and the log-probability of the actions, (B,).
        """
        outputs, values, *_ = self._forward(observations)[-1]
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
        self._inputs = self._forward(observations)
        self._outputs = self._inputs.pop().requires_grad_()
        outputs, *critics = self._outputs.unbind(0)
        actions_of = self._distribution(outputs)
        return [critic[:, 0] for critic in critics], actions_of.log_prob(actions), actions_of.entropy()

    def _forward(self, observations: torch.Tensor) -> list[torch.Tensor]:
        """The inputs of each layer of all networks, (N, B, I), and the padded outputs of the last layer, (N, B, O)."""
        found = [observations.float().expand(len(self._levels[0]), -1, -1)]
        for weight, bias in self._layers[:-1]:
            found.append(self._activation(torch.baddbmm(bias, found[-1], weight)))
        weight, bias = self._layers[-1]
        return [*found, torch.baddbmm(bias, found[-1], weight)]

    def _distribution(self, outputs: torch.Tensor) -> Categorical | Gaussian:
        return Categorical(outputs) if self._log_std is None else Gaussian(outputs, self._fused_log_std)

    def load_optimizer(self, optimizer: torch.optim.Adam) -> None:
        """Start an update with the options and moments of the policy's optimiser."""
        group = optimizer.param_groups[0]
        options = {name: group[name] for name in optimizer.defaults if name != "betas"}
        step = torch.zeros((), device=self._vector.device if group["fused"] else "cpu")
        self._state = {"step": step, **{name: torch.zeros_like(self._vector) for name in ("exp_avg", "exp_avg_sq")}}
        if optimizer.state:
            step.copy_(next(iter(optimizer.state.values()))["step"])
            for name in ("exp_avg", "exp_avg_sq"):
                for parameter, part in self._parts(self._state[name]):
                    part.copy_(optimizer.state[parameter][name])
        state = [[self._vector], [self._gradient], *([self._state[name]] for name in ("exp_avg", "exp_avg_sq"))]
        # without the hooks of `Adam.step`, which take most of its time
        self._move = partial(adam, *state, [], [step], beta1=group["betas"][0], beta2=group["betas"][1], **options)

    def step(self, loss: torch.Tensor, max_grad_norm: float) -> None:
        """Clip the gradient by its norm over all networks, and move the weights."""
        if self._log_std is None:
            (gradient,) = torch.autograd.grad(loss, self._outputs)
        else:
            gradient, log_std_gradient = torch.autograd.grad(loss, (self._outputs, self._fused_log_std))
            self._log_std_gradient.copy_(log_std_gradient)
        for index in reversed(range(len(self._layers))):
            weight_gradient, bias_gradient = self._layer_gradients[index]
            torch.bmm(self._inputs[index].mT, gradient, out=weight_gradient)
            torch.sum(gradient, 1, keepdim=True, out=bias_gradient)
            if index:
                gradient = torch.bmm(gradient, self._layers[index][0].mT)
                gradient = self._activation_gradient(gradient, self._inputs[index])
        self._gradient.mul_((max_grad_norm / (self._gradient.norm() + 1e-6)).clamp_(max=1.0))
        self._move()

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
        for name, state in self._state.items():
            for parameter, value in self._parts(self._vector if name == "step" else state):
                optimizer.state[parameter][name] = (state if name == "step" else value).clone()

    def _layers_of(self, vector: torch.Tensor) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], torch.Tensor | None]:
        """The weights and biases of each layer, and log_std, as views of a vector."""
        tensors = self._split(vector)
        log_std = None if self._log_std is None else tensors.pop()
        return list(zip(tensors[0::2], tensors[1::2], strict=True)), log_std

    def _split(self, vector: torch.Tensor) -> list[torch.Tensor]:
        sizes = [math.prod(shape) for shape in self._shapes]
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
        and not optimizer.param_groups[0]["amsgrad"]
        and all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in parameters)
        and len({float(optimizer.state[p]["step"]) if p in optimizer.state else 0.0 for p in parameters}) == 1
    )
    return FusedNetworks(linear, _ACTIVATIONS[policy.activation_fn], log_std) if known else None
