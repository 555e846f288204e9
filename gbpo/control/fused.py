"""Policy, value and median network of an MLP policy as one batched network.

Networks and minibatches of control are small, so an update spends most of its time on the overhead of operations. The
fused networks need a third of the operations: layer k of all networks is one batched product, whose gradient is written
by hand, and Adam moves one vector.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import CategoricalDistribution, DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn
from torch.optim.adam import adam

# Each activation, and the gradient of its input from the gradient of its output and the output
_ACTIVATIONS: dict[type[nn.Module], tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]]] = {
    nn.Tanh: (torch.tanh, torch.ops.aten.tanh_backward),
    nn.ReLU: (torch.relu, partial(torch.ops.aten.threshold_backward, threshold=0)),
}
_MOMENTS = ("exp_avg", "exp_avg_sq")
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class FusedNetworks:
    """N networks with equal hidden layers. They start as copies of the given networks. The first one is the policy.

    Args:
        networks: The linear layers of each network. The output layers may differ in width; the narrower ones are padded
            with zeros, whose gradients are 0.
        activation: Class of the activation function between the layers.
        log_std: Logarithm of the standard deviation of the actions, (A,); None for discrete actions.
    """

    def __init__(
        self, networks: Sequence[Sequence[nn.Linear]], activation: type[nn.Module], log_std: nn.Parameter | None
    ):
        self._levels = list(zip(*networks, strict=True))  # layer k of all networks
        self._activation, self._activation_gradient = _ACTIVATIONS[activation]
        self._shapes: list[tuple[int, ...]] = []
        for level in self._levels:
            width = max(layer.out_features for layer in level)
            self._shapes += [(len(level), level[0].in_features, width), (len(level), 1, width)]
        self._parameters = [parameter for level in self._levels for la in level for parameter in (la.weight, la.bias)]
        if log_std is not None:
            self._shapes.append((len(log_std),))
            self._parameters.append(log_std)
        self.weights = self.zeros()
        self._read_weights()
        self.gradient = self.zeros()
        self._layers, self._log_std = self._views(self.weights)
        self._layer_gradients, self._log_std_gradient = self._views(self.gradient)
        for view in self._log_std:
            view.requires_grad_()

    def act(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sample actions as `ActorCriticPolicy.forward` does, with the same random numbers.

        The weights are read again if those of the given networks have changed in place. Torch does not count changes by
        a fused optimiser or through `.data`.

        Args:
            observations: (B, D).

        Returns:
            Actions, (B,) or (B, A); v(s), (B, 1); and the log-probability of the actions, (B,).
        """
        if [parameter._version for parameter in self._parameters] != self._versions:
            self._read_weights()
        outputs, values, *_ = self._forward(observations)[-1]
        distribution = self._distribution(outputs)
        actions = distribution.sample()
        return actions, values[:, :1], distribution.log_prob(actions)

    def evaluate(self, observations: torch.Tensor, actions: torch.Tensor) -> tuple[Any, ...]:
        """Evaluate actions as `ActorCriticPolicy.evaluate_actions` does.

        Args:
            observations: (B, D).
            actions: (B,) or (B, A).

        Returns:
            The estimate of each critic, (B,); the log-probability of the actions, (B,); and the entropy, (B,). Their
            gradients end at the outputs of the networks, where `backward` begins.
        """
        *self._inputs, outputs = self._forward(observations)
        self._outputs = outputs.requires_grad_()
        of_policy, *of_critics = self._outputs.unbind(0)
        distribution = self._distribution(of_policy)
        critics = [output[:, 0] for output in of_critics]
        return *critics, distribution.log_prob(actions), distribution.entropy()

    def backward(self, loss: torch.Tensor) -> None:
        """Set `gradient` to the gradient of a loss of the last evaluation."""
        gradient, *of_log_std = torch.autograd.grad(loss, [self._outputs, *self._log_std])  # (N, B, O), (A,)
        for view, value in zip(self._log_std_gradient, of_log_std, strict=True):
            view.copy_(value)
        for index in reversed(range(len(self._layers))):
            weight_gradient, bias_gradient = self._layer_gradients[index]
            torch.bmm(self._inputs[index].mT, gradient, out=weight_gradient)
            torch.sum(gradient, 1, keepdim=True, out=bias_gradient)
            if index:
                gradient = torch.bmm(gradient, self._layers[index][0].mT)
                gradient = self._activation_gradient(gradient, self._inputs[index])

    def zeros(self) -> torch.Tensor:
        """A vector with one element for each weight, and for each element of the padding."""
        return torch.zeros(sum(map(math.prod, self._shapes)), device=self._parameters[0].device)

    def parts(self, vector: torch.Tensor) -> Iterator[tuple[nn.Parameter, torch.Tensor]]:
        """Each parameter of the policy, with its part of a vector as a view in the same shape."""
        layers, log_std = self._views(vector)
        parameters = iter(self._parameters)
        for level, (weights, biases) in zip(self._levels, layers, strict=True):
            for layer, weight, bias in zip(level, weights, biases, strict=True):
                yield next(parameters), weight[:, : layer.out_features].T
                yield next(parameters), bias[0, : layer.out_features]
        yield from zip(parameters, log_std, strict=True)

    def _read_weights(self) -> None:
        """Copy the weights of the given networks."""
        self._versions = [parameter._version for parameter in self._parameters]
        for parameter, part in self.parts(self.weights):
            part.copy_(parameter.detach())

    def _views(self, vector: torch.Tensor) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], list[torch.Tensor]]:
        """Views of a vector: the weights, (N, I, O), and biases, (N, 1, O), of each layer; log_std, if there is one."""
        split = vector.split([math.prod(shape) for shape in self._shapes])
        tensors = [part.view(shape) for part, shape in zip(split, self._shapes, strict=True)]
        ends = 2 * len(self._levels)
        return list(zip(tensors[0:ends:2], tensors[1:ends:2], strict=True)), tensors[ends:]

    def _forward(self, observations: torch.Tensor) -> list[torch.Tensor]:
        """The inputs of each layer, (N, B, I), and the padded outputs of the last one, (N, B, O), without gradient."""
        found = [observations.float().expand(len(self._levels[0]), -1, -1)]
        for weight, bias in self._layers[:-1]:
            found.append(self._activation(torch.baddbmm(bias, found[-1], weight)))
        weight, bias = self._layers[-1]
        return [*found, torch.baddbmm(bias, found[-1], weight)]

    def _distribution(self, outputs: torch.Tensor) -> Categorical | Gaussian:
        return Gaussian(outputs, *self._log_std) if self._log_std else Categorical(outputs)


class Update:
    """The optimiser's steps in the update of a policy.

    Args:
        policy: A policy with its optimiser.
    """

    def __init__(self, policy: ActorCriticPolicy):
        self._policy = policy

    def step(self, loss: torch.Tensor, max_grad_norm: float) -> None:
        """Clip the gradient by its norm, and move the weights."""
        self._policy.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._policy.parameters(), max_grad_norm)
        self._policy.optimizer.step()

    def finish(self) -> None:
        """End the update."""


class FusedUpdate:
    """The same steps with fused networks.

    Args:
        networks: The networks to train.
        optimizer: The policy's optimiser. Its options and moments are used, and its moments are updated at the end.
    """

    def __init__(self, networks: FusedNetworks, optimizer: torch.optim.Adam):
        self._networks, self._optimizer = networks, optimizer
        group = optimizer.param_groups[0]
        options = {name: group[name] for name in optimizer.defaults if name != "betas"}
        beta1, beta2 = group["betas"]
        self._steps = torch.zeros((), device=networks.weights.device if group["fused"] else "cpu")
        self._moments = {name: networks.zeros() for name in _MOMENTS}
        for name, moment in self._moments.items():
            for parameter, part in networks.parts(moment):
                if parameter in optimizer.state:
                    part.copy_(optimizer.state[parameter][name])
                    self._steps.copy_(optimizer.state[parameter]["step"])
        mean, square = self._moments.values()
        self._adam = partial(  # the hooks of `Adam.step` take longer than the step itself
            adam,
            [networks.weights],
            [networks.gradient],
            [mean],
            [square],
            [],
            [self._steps],
            beta1=beta1,
            beta2=beta2,
            **options,
        )

    def step(self, loss: torch.Tensor, max_grad_norm: float) -> None:
        """Clip the gradient by its norm, and move the weights."""
        self._networks.backward(loss)
        gradient = self._networks.gradient
        norm = torch.linalg.vector_norm(gradient)
        gradient.div_(norm.add_(1e-6).div_(max_grad_norm).clamp_(min=1.0))  # as torch's clip_grad_norm_
        self._adam()

    def finish(self) -> None:
        """Copy the weights and the last gradient to the policy, and the moments and the steps to its optimiser.

        Raises:
            ValueError: A weight is not finite. The policy keeps its weights.
        """
        if not self._networks.weights.isfinite().all():
            raise ValueError(
                "The update made weights infinite or NaN, so no action could be sampled. Lower learning_rate, or check "
                "that observations and rewards are finite."
            )
        for parameter, part in self._networks.parts(self._networks.weights):
            parameter.data.copy_(part)
            self._optimizer.state[parameter]["step"] = self._steps.clone()
        for parameter, part in self._networks.parts(self._networks.gradient):
            parameter.grad = part.clone(memory_format=torch.contiguous_format)
        for name, moment in self._moments.items():
            for parameter, part in self._networks.parts(moment):
                self._optimizer.state[parameter][name] = part.clone(memory_format=torch.contiguous_format)


class Categorical:
    """Discrete actions with the given logits, (B, A). `torch.distributions` spends more time on checks."""

    def __init__(self, logits: torch.Tensor):
        self._log_probs = logits.log_softmax(-1)

    def sample(self) -> torch.Tensor:
        """One action per row, (B,), with the random numbers of `torch.distributions`."""
        return torch.multinomial(self._log_probs.exp(), 1, True).squeeze(1)

    def log_prob(self, actions: torch.Tensor) -> torch.Tensor:
        """The log-probability of each action, (B,)."""
        return self._log_probs.gather(1, actions[:, None]).squeeze(1)

    def entropy(self) -> torch.Tensor:
        """The entropy of each row, (B,)."""
        return -(self._log_probs.exp() * self._log_probs).sum(-1)


class Gaussian:
    """Independent normal actions with the given means, (B, A), and standard deviations exp(`log_std`), (A,)."""

    def __init__(self, means: torch.Tensor, log_std: torch.Tensor):
        self._means, self._log_std = means, log_std
        self._log_peak = -len(log_std) * _LOG_SQRT_2PI - log_std.sum()  # log-density at the mean

    def sample(self) -> torch.Tensor:
        """One action per row, (B, A), with the random numbers of `torch.distributions`."""
        return torch.addcmul(self._means, torch.randn_like(self._means), self._log_std.exp())

    def log_prob(self, actions: torch.Tensor) -> torch.Tensor:
        """The log-density of each action, (B,)."""
        deviation = (actions - self._means) * (-self._log_std).exp()
        return self._log_peak.sub(deviation.square().sum(-1), alpha=0.5)

    def entropy(self) -> torch.Tensor:
        """The entropy of each row, (B,)."""
        return (0.5 * len(self._log_std) - self._log_peak).expand(len(self._means))


def fuse(policy: ActorCriticPolicy, networks: Sequence[nn.Module]) -> FusedNetworks | None:
    """Fuse the networks of a policy.

    Args:
        policy: A policy whose networks read the observations and share no layers.
        networks: The layers of each network, in order; the policy's network is the first.

    Returns:
        The fused networks, or None if the policy's spaces, layers or optimiser are of another kind, or if hooks watch
        its layers or gradients.
    """
    space, optimizer = policy.observation_space, policy.optimizer
    linear = [[layer for layer in network.modules() if isinstance(layer, nn.Linear)] for network in networks]
    hidden = [[layer.out_features for layer in network[:-1]] for network in linear]
    log_std = policy.log_std if isinstance(policy.action_dist, DiagGaussianDistribution) else None
    parameters = [parameter for network in linear for layer in network for parameter in layer.parameters()]
    parameters += [] if log_std is None else [log_std]
    layers = (nn.Sequential, nn.Linear, policy.activation_fn)
    known = (
        isinstance(space, spaces.Box)
        and len(space.shape) == 1
        and len(policy.action_space.shape) == (0 if log_std is None else 1)
        and type(policy.features_extractor) is FlattenExtractor
        and type(policy.action_dist) in (CategoricalDistribution, DiagGaussianDistribution)
        and policy.activation_fn in _ACTIVATIONS
        and all(widths == hidden[0] for widths in hidden)
        and all(type(layer) in layers for network in networks for layer in network.modules())
        and all(layer.bias is not None for network in linear for layer in network)
        and all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in parameters)
        and not _has_hooks(policy)
        and type(optimizer) is torch.optim.Adam
        and len(optimizer.param_groups) == 1
        and {*parameters} <= {*optimizer.param_groups[0]["params"]}
        and not optimizer.param_groups[0]["amsgrad"]
        and len({float(optimizer.state.get(parameter, {}).get("step", 0)) for parameter in parameters}) == 1
    )
    return FusedNetworks(linear, policy.activation_fn, log_std) if known else None


def _has_hooks(policy: ActorCriticPolicy) -> bool:
    """Whether hooks watch the layers or the gradients of a policy. Fused networks would not call them."""
    layers = (layer for layer in policy.modules() if layer is not policy)
    of_layers = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    of_gradients = ("_backward_hooks", "_post_accumulate_grad_hooks")
    return any(getattr(layer, name) for layer in layers for name in of_layers) or any(
        getattr(parameter, name) for parameter in policy.parameters() for name in of_gradients
    )
