"""Random problems for the checks, and the optimum that `gbpo.core` gives for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from gbpo.core import exact_target_ratio, median_loss, target_ratio

from .decision_processes import MDPs, random_mdps

KINDS = 8  # symmetric bounds or not × duplicate actions or not × π0 uniform or weighted


@dataclass(frozen=True)
class Problem:
    """Decision processes, an old policy and bounds.

    The old policy π0 is either uniform or weighted.

    With a uniform π0, the A actions of a state represent the A samples of a group. Each has the weight 1/A.
    `exact_target_ratio` and `group_target_ratio` need this form. k identical actions then represent one action of
    probability k/A.

    A weighted π0 has arbitrary probabilities. The checks then use `target_ratio` with the baseline that minimises
    E_{a~π0}[median loss], as BPO does in control.

    Args:
        mdps: n processes with S states and A actions.
        old: π0, (n, S, A), positive.
        bounds: `epsilon_low` and `epsilon_high`, as arguments for the functions of the core.
        uniform: Whether all actions have the same probability under π0.
        duplicates: Whether some actions are identical, so that their values tie.
    """

    mdps: MDPs
    old: np.ndarray
    bounds: dict[str, float]
    uniform: bool
    duplicates: bool

    @property
    def lift(self) -> float:
        """(1 − c_l) / (c_h − c_l): the total probability under π0 of the actions whose ratio is the upper bound."""
        return self.bounds["epsilon_low"] / (self.bounds["epsilon_low"] + self.bounds["epsilon_high"])

    def optimal_ratio(self, q: np.ndarray) -> np.ndarray:
        """ρ* computed by `gbpo.core` for action values q, (n, S, A)."""
        if self.uniform:
            return call_core(exact_target_ratio, q, **self.bounds)
        return weighted_ratio(q, self.old, self.bounds)

    def regularised_ratio(self, q: np.ndarray, temperature: float) -> np.ndarray:
        """ρ* computed by `gbpo.core` at a temperature above 0, (n, S, A)."""
        if self.uniform:
            return call_core(exact_target_ratio, q, **self.bounds, temperature=temperature)
        centred = q - hard_baseline(q, self.old, self.bounds)  # smaller numbers have smaller rounding errors
        centred -= smooth_baseline(centred, self.old, self.bounds, temperature)
        return call_core(target_ratio, centred, **self.bounds, temperature=temperature)


def random_problem(rng: np.random.Generator, n: int, kind: int) -> Problem:
    """Draw a problem.

    Args:
        rng: Random generator.
        n: Number of decision processes.
        kind: A number below `KINDS`. The bits 1, 2 and 4 mean asymmetric bounds, duplicate actions and uniform π0.
    """
    asymmetric, duplicates, uniform = (bool(kind & bit) for bit in (1, 2, 4))
    low, high = rng.uniform(0.1, 0.9, size=2)
    mdps = random_mdps(rng, n, duplicates=duplicates)
    old = np.ones(mdps.rewards.shape) if uniform else rng.uniform(0.02, 1.0, size=mdps.rewards.shape)
    bounds = {"epsilon_low": float(low), "epsilon_high": 2 * float(high) if asymmetric else float(low)}
    return Problem(mdps, old / old.sum(-1, keepdims=True), bounds, uniform, duplicates)


def weighted_ratio(q: np.ndarray, old: np.ndarray, bounds: dict[str, float]) -> np.ndarray:
    """BRRL optimum for actions with arbitrary probabilities: `target_ratio` with the minimiser of the median loss.

    `ρ* = 1 + ε · sign(Q − μ)` does not determine the ratio of actions with Q = μ. These actions get equal ratios,
    chosen such that E[ρ*] = 1.

    Args:
        q: Action values, (..., A).
        old: π0, (..., A).
        bounds: `epsilon_low` and `epsilon_high`.

    Returns:
        ρ*, (..., A).
    """
    centred = q - hard_baseline(q, old, bounds)
    ratio = call_core(target_ratio, centred, **bounds, temperature=0.0)
    tied = centred == 0
    left = 1 - (old * ratio).sum(-1, where=~tied, keepdims=True)
    return np.where(tied, left / old.sum(-1, where=tied, keepdims=True), ratio)


def hard_baseline(q: np.ndarray, old: np.ndarray, bounds: dict[str, float]) -> np.ndarray:
    """Action value that minimises E_{a~π0}[median loss] at τ = 0, (..., A) → (..., 1)."""
    losses = call_core(
        median_loss, q[..., None, :], q[..., :, None], **bounds, temperature=0.0
    )  # (..., A baselines, A)
    best = (old[..., None, :] * losses).sum(-1).argmin(-1)
    return np.take_along_axis(q, best[..., None], axis=-1)


def smooth_baseline(q: np.ndarray, old: np.ndarray, bounds: dict[str, float], temperature: float) -> np.ndarray:
    """Minimiser of E_{a~π0}[median loss] at τ > 0, (..., A) → (..., 1), by bisection on its gradient."""
    values, weights = torch.from_numpy(q), torch.from_numpy(old)
    low = values.amin(-1, keepdim=True) - 10 * temperature
    high = values.amax(-1, keepdim=True) + 10 * temperature
    for _ in range(60):
        middle = ((low + high) / 2).requires_grad_()
        loss = median_loss(values, middle.expand_as(values), **bounds, temperature=temperature)
        (slope,) = torch.autograd.grad((weights * loss).sum(), middle)
        low, high = torch.where(slope < 0, middle, low).detach(), torch.where(slope < 0, high, middle).detach()
    return ((low + high) / 2).numpy()


def call_core(function: Callable[..., torch.Tensor], *arrays: np.ndarray, **options) -> np.ndarray:
    """Call a function of the core with NumPy arrays."""
    return function(*map(torch.from_numpy, arrays), **options).numpy()
