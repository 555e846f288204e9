"""Random finite Markov decision processes, small enough for exact linear solves in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DISCOUNTS = (0.0, 0.5, 0.9, 0.99)
ROUNDING = 1e-11  # rounding error of an action value; at γ = 0.99 action values reach 100


@dataclass(frozen=True)
class MDPs:
    """n decision processes with S states and A actions. A policy π(a|s) has the shape (n, S, A).

    Args:
        rewards: r(s, a), (n, S, A).
        transitions: P(s'|s, a), (n, S, A, S).
        start: Distribution of the first state, (n, S).
        discount: γ, in [0, 1).
    """

    rewards: np.ndarray
    transitions: np.ndarray
    start: np.ndarray
    discount: float

    def values(self, policy: np.ndarray) -> np.ndarray:
        """V of the policy, (n, S): `V = (I − γ P_π)⁻¹ r_π`."""
        return np.linalg.solve(self._resolvent(policy), (policy * self.rewards).sum(-1)[..., None])[..., 0]

    def action_values(self, policy: np.ndarray) -> np.ndarray:
        """Q of the policy, (n, S, A): `Q = r + γ P V`. Values that differ only by rounding are made equal."""
        values = self.values(policy)
        return _with_ties(self.rewards + self.discount * np.einsum("nsat,nt->nsa", self.transitions, values))

    def returns(self, policy: np.ndarray) -> np.ndarray:
        """η, the expected discounted return, (n,): the expected V of the first state."""
        return (self.start * self.values(policy)).sum(-1)

    def occupancy(self, policy: np.ndarray) -> np.ndarray:
        """State distribution d, (n, S), discounted and not normalised: `d = Σ_t γ^t P(s_t = s)`.

        The sum of d is 1 / (1 − γ), and `η(π) = Σ_s d(s) Σ_a π(a|s) r(s, a)`.
        """
        return np.linalg.solve(self._resolvent(policy).swapaxes(-1, -2), self.start[..., None])[..., 0]

    def optimal_returns(self) -> np.ndarray:
        """Largest η of any policy, (n,), by policy iteration."""
        policy = np.full_like(self.rewards, 1 / self.rewards.shape[-1])
        best = self.returns(policy)
        while True:
            policy = np.eye(policy.shape[-1])[self.action_values(policy).argmax(-1)]
            improved = self.returns(policy)
            if (improved - best).max() <= ROUNDING:
                return improved
            best = improved

    def _resolvent(self, policy: np.ndarray) -> np.ndarray:
        states = self.rewards.shape[1]
        return np.eye(states) - self.discount * np.einsum("nsa,nsat->nst", policy, self.transitions)


def random_mdps(rng: np.random.Generator, n: int, *, duplicates: bool) -> MDPs:
    """Draw n processes with 1 to 6 states and 2 to 8 actions.

    Args:
        rng: Random generator.
        n: Number of processes.
        duplicates: If true, rewards are 0 or 1 and some actions of a state are identical, so that action values tie.
            Otherwise rewards are normally distributed and all actions differ.
    """
    states, actions = int(rng.integers(1, 7)), int(rng.integers(2, 9))
    kinds = int(rng.integers(1, actions)) if duplicates else actions
    rewards = rng.normal(size=(n, states, kinds))
    transitions = rng.dirichlet(np.full(states, 0.5), size=(n, states, kinds))
    start = rng.dirichlet(np.ones(states), size=n)
    if duplicates:
        kind = rng.integers(kinds, size=(n, states, actions))
        rewards = np.take_along_axis((rewards > 0).astype(float), kind, axis=-1)
        transitions = np.take_along_axis(transitions, kind[..., None], axis=-2)
    return MDPs(rewards, transitions, start, float(rng.choice(DISCOUNTS)))


def _with_ties(values: np.ndarray) -> np.ndarray:
    """Values, (..., A), with ties: values that differ only by rounding are replaced by the smallest of them."""
    order = values.argsort(-1)
    ascending = np.take_along_axis(values, order, axis=-1)
    distinct = np.diff(ascending, axis=-1, prepend=-np.inf) > ROUNDING
    smallest = np.maximum.accumulate(np.where(distinct, np.arange(values.shape[-1]), 0), axis=-1)
    tied = np.empty_like(values)
    np.put_along_axis(tied, order, np.take_along_axis(ascending, smallest, axis=-1), axis=-1)
    return tied
