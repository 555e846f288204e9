"""The theorems of Bounded Ratio Reinforcement Learning, as checks that fail when `gbpo.core` is wrong.

    python -m evals.theory [--mdps N] [--seed S] [--json FILE]

draws random finite decision processes, asks `gbpo.core` for targets and losses, and compares them
with what does not use it: SciPy's linear programmes and convex solver, exact linear solves, PPO's loss under autograd,
sorting. One line a check: cases (processes, states or single ratios, whichever it measures), worst error, tolerance,
and what it covers. Exit status: 0 when all pass, 1 when one fails, 2 for bad input.

The old policy π0 comes in two kinds. *Uniform*: A equally likely actions, the samples of a group that
`exact_target_ratio` and `group_target_ratio` ask for; an action of probability k/A is k twins, actions that do the
same, so that no rational probabilities are left out. *Weighted*: any probabilities, with the baseline that minimises
E_{a~π0}[median loss] and `target_ratio` around it, as BPO has them in control.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from scipy import optimize, sparse, special

from gbpo.core import bounded_ratio_loss, exact_target_ratio, group_target_ratio, median_loss, target_ratio

from .decision_processes import MDPs, random_mdps

KINDS = 8  # bounds symmetric or not × twins or not × π0 uniform or weighted
BATCH = 100  # decision processes solved at once
SOLVED_STATES = 8  # at most of a batch, handed to the convex solver, which takes them one by one
UPDATES = 1000  # at most, towards the optimal return
REACHED = 1e-10  # as near to it as they go

# name: (tolerance, what it covers)
CHECKS = {
    "optimum, value": (1e-9, "E[ρ*Q] = the LP's, every state; exact, group, weighted; ties"),
    "optimum, ratios": (1e-8, "ρ* = the LP's in the same states, shared where values tie"),
    "optimum, published median": (1e-9, "group median = the LP; symmetric bounds, nothing tied"),
    "optimum, regularised": (1e-5, "ρ* = a convex solver's, some states; exact, weighted; ties"),
    "optimum, regularised value": (1e-9, "its objective = the solver's in the same states"),
    "improvement, π* is a policy": (1e-9, "E[ρ*] = 1 within the bounds; regularised too"),
    "improvement, η(π*) − η(π0) = ε·B": (1e-9, "asymmetric: E[ε_high Ã⁺ + ε_low Ã⁻] for ε·B"),
    "improvement, ≥ 0": (1e-9, "fall of η from π0 to π*; regularised too"),
    "improvement, repeated": (1e-9, f"largest fall of η in up to {UPDATES} exact updates; weighted"),
    "improvement, optimal return": (1e-9, "what η lacks of policy iteration's after them"),
    "lower bound, holds": (1e-9, "η(π) below it; exact δ; random π inside the bounds, anywhere"),
    "lower bound, tight at π*": (1e-9, "|slack| at π = π*"),
    "lower bound, its slack": (1e-9, "slack = 2·E[((ρ − ρ*)A)⁺]; the same π"),
    "lower bound, weighted by |Ã|": (1e-9, "|slack| with |Ã| for |A| in the loss; π inside the bounds"),
    "lower bound, worst case of δ": (1e-9, "|δ| above 2γ(1 + h)/(1 − γ)²·max|A|·max TV(π, π*)"),
    "PPO, gradient": (1e-12, "= BPO's with ρ* = 1 + ε·sign A (also group mean), unless past ρ*"),
    "PPO, past the target": (1e-12, "PPO's gradient 0, BPO's |A|·ρ·sign(ρ − ρ*)"),
    "PPO, overshoot_slope 0": (1e-12, "PPO's gradient = BPO's at any ρ"),
    "cross-entropy method": (1e-12, "c_l = 0, c_h = 1/q: each of the top q by sorting gets 1/q; ties"),
    "median loss, quantile": (0.0, "minimiser at τ = 0: the ε_high/(ε_low + ε_high) quantile"),
    "median loss, τ → 0": (1e-7, "minimiser at τ = 1e-9: the same"),
    "median loss, τ > 0": (1e-9, "E[σ((Q − μ)/τ)] = (1 − c_l)/(c_h − c_l) at the minimiser μ"),
}

Errors = Iterable[tuple[str, np.ndarray]]


# ---------------------------------------------------------------------------------------------------------------------
# what is drawn, and what the core makes of it
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """Decision processes, an old policy and bounds.

    Args:
        mdps: n processes of S states and A actions.
        old: π0, (n, S, A), positive.
        bounds: `epsilon_low` and `epsilon_high`, as the functions of the core take them.
        uniform: Whether all actions have the same probability under π0.
        twins: Whether action values tie.
    """

    mdps: MDPs
    old: np.ndarray
    bounds: dict[str, float]
    uniform: bool
    twins: bool

    @property
    def lift(self) -> float:
        """(1 − c_l) / (c_h − c_l): the probability under π0 of what is raised to the upper bound."""
        return self.bounds["epsilon_low"] / (self.bounds["epsilon_low"] + self.bounds["epsilon_high"])

    def optimal_ratio(self, q: np.ndarray) -> np.ndarray:
        """ρ* of the core for action values q, (n, S, A)."""
        return _core(exact_target_ratio, q, **self.bounds) if self.uniform else weighted_ratio(q, self.old, self.bounds)

    def regularised_ratio(self, q: np.ndarray, temperature: float) -> np.ndarray:
        """ρ* of the core at a temperature > 0."""
        if self.uniform:
            return _core(exact_target_ratio, q, **self.bounds, temperature=temperature)
        centred = q - hard_baseline(q, self.old, self.bounds)  # small numbers, whose differences round less
        centred -= smooth_baseline(centred, self.old, self.bounds, temperature)
        return _core(target_ratio, centred, **self.bounds, temperature=temperature)


def random_problem(rng: np.random.Generator, n: int, kind: int) -> Problem:
    """n decision processes of one of the `KINDS`, the bits of `kind`: asymmetric bounds, twins, uniform π0."""
    asymmetric, twins, uniform = (bool(kind & bit) for bit in (1, 2, 4))
    low, high = rng.uniform(0.1, 0.9, size=2)
    mdps = random_mdps(rng, n, twins=twins)
    old = np.ones(mdps.rewards.shape) if uniform else rng.uniform(0.02, 1.0, size=mdps.rewards.shape)
    bounds = {"epsilon_low": float(low), "epsilon_high": 2 * float(high) if asymmetric else float(low)}
    return Problem(mdps, old / old.sum(-1, keepdims=True), bounds, uniform, twins)


def weighted_ratio(q: np.ndarray, old: np.ndarray, bounds: dict[str, float]) -> np.ndarray:
    """BRRL optimum of actions of any probabilities: `target_ratio` around the minimiser of the median loss.

    `ρ* = 1 + ε · sign(Q − μ)` says nothing of the actions with Q = μ; they share equally what E[ρ*] = 1 leaves them.

    Args:
        q: Action values, (..., A).
        old: π0, (..., A).
        bounds: `epsilon_low` and `epsilon_high`.

    Returns:
        ρ*, (..., A).
    """
    centred = q - hard_baseline(q, old, bounds)
    ratio = _core(target_ratio, centred, **bounds, temperature=0.0)
    tied = centred == 0
    left = 1 - (old * ratio).sum(-1, where=~tied, keepdims=True)
    return np.where(tied, left / old.sum(-1, where=tied, keepdims=True), ratio)


def hard_baseline(q: np.ndarray, old: np.ndarray, bounds: dict[str, float]) -> np.ndarray:
    """The one of the action values that minimises E_{a~π0}[median loss at τ = 0], (..., A) → (..., 1)."""
    losses = _core(median_loss, q[..., None, :], q[..., :, None], **bounds, temperature=0.0)  # (..., A baselines, A)
    best = (old[..., None, :] * losses).sum(-1).argmin(-1)
    return np.take_along_axis(q, best[..., None], axis=-1)


def smooth_baseline(q: np.ndarray, old: np.ndarray, bounds: dict[str, float], temperature: float) -> np.ndarray:
    """The minimiser of E_{a~π0}[median loss] at τ > 0, (..., A) → (..., 1), by bisection on its gradient."""
    values, weights = torch.from_numpy(q), torch.from_numpy(old)
    low = values.amin(-1, keepdim=True) - 10 * temperature
    high = values.amax(-1, keepdim=True) + 10 * temperature
    for _ in range(60):
        middle = ((low + high) / 2).requires_grad_()
        loss = median_loss(values, middle.expand_as(values), **bounds, temperature=temperature)
        (slope,) = torch.autograd.grad((weights * loss).sum(), middle)
        low, high = torch.where(slope < 0, middle, low).detach(), torch.where(slope < 0, high, middle).detach()
    return ((low + high) / 2).numpy()


def _core(function: Callable[..., torch.Tensor], *arrays: np.ndarray, **options) -> np.ndarray:
    return function(*map(torch.from_numpy, arrays), **options).numpy()


# ---------------------------------------------------------------------------------------------------------------------
# the checks: each yields its name with errors
# ---------------------------------------------------------------------------------------------------------------------


def optimum(problem: Problem, rng: np.random.Generator) -> Errors:
    """BRRL optimum: ρ* maximises `E_{a~π0}[ρ Q]` subject to `c_l ≤ ρ ≤ c_h` and `E[ρ] = 1`, in every state."""
    q, old, bounds = problem.mdps.action_values(problem.old), problem.old, problem.bounds
    best = linear_programme(q, old, bounds)
    ratios = [weighted_ratio(q, old, bounds)]
    if problem.uniform:
        actions = {"num_generations": q.shape[-1], "temperature": 0.0, **bounds}
        exact = _core(group_target_ratio, q.reshape(-1), baseline="exact", **actions).reshape(q.shape)
        ratios += [exact, problem.optimal_ratio(q)]
        if not problem.twins and bounds["epsilon_low"] == bounds["epsilon_high"]:
            published = _core(group_target_ratio, q.reshape(-1), baseline="median", **actions).reshape(q.shape)
            yield "optimum, published median", abs((old * published - best) * q).sum(-1)
    # of equal values only the sum over all of them is determined by the programme
    equal = q[..., :, None] == q[..., None, :]  # (n, S, A, A)
    shared = (equal * best[..., None, :]).sum(-1) / (equal * old[..., None, :]).sum(-1)
    for ratio in ratios:
        yield "optimum, value", abs(((old * ratio - best) * q).sum(-1))
        yield "optimum, ratios", abs(ratio - shared)
    yield from _regularised(problem, q, rng)


def linear_programme(q: np.ndarray, old: np.ndarray, bounds: dict[str, float]) -> np.ndarray:
    """The policy π = π0 ρ, as q, that maximises E_{a~π}[Q]: SciPy's HiGHS, the states as blocks of one programme."""
    actions = q.shape[-1]
    blocks = sparse.kron(sparse.eye(q.size // actions), np.ones((1, actions)), format="csr")
    limits = np.stack([old * (1 - bounds["epsilon_low"]), old * (1 + bounds["epsilon_high"])], axis=-1)
    solution = optimize.linprog(
        -q.reshape(-1),
        A_eq=blocks,
        b_eq=np.ones(blocks.shape[0]),
        bounds=limits.reshape(-1, 2),
        method="highs-ds",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    return solution.x.reshape(q.shape)


def _regularised(problem: Problem, q: np.ndarray, rng: np.random.Generator) -> Errors:
    """Regularised BRRL optimum: what `ρ* = c_l + (c_h − c_l) · σ((Q − μ) / T)` maximises.

    With the lift x = (ρ − c_l) / (c_h − c_l) in [0, 1] and the entropy H(x) = −x ln x − (1 − x) ln(1 − x), it is

        E_{a~π0}[ρ Q] + T (c_h − c_l) · E_{a~π0}[H(x)]   subject to   E[x] = (1 − c_l) / (c_h − c_l), that is E[ρ] = 1.

    Divided by c_h − c_l and up to a constant this is E[x Q + T H(x)], strictly concave. With μ the multiplier of the
    constraint and H'(x) = −logit(x), it is stationary where Q − μ = T · logit(x), that is x = σ((Q − μ) / T).
    """
    temperature = _temperature(q, rng)
    ratio = problem.regularised_ratio(q, temperature)
    lift = (ratio - 1 + problem.bounds["epsilon_low"]) / sum(problem.bounds.values())
    actions, centred = q.shape[-1], q - q.mean(-1, keepdims=True)
    for state in rng.integers(q.size // actions, size=min(SOLVED_STATES, len(q))):
        ours, values, weights = (array.reshape(-1, actions)[state] for array in (lift, centred, problem.old))
        solved = convex_solver(values, weights, problem.lift, temperature)
        objectives = [weights @ (x * values + temperature * _entropy(x)) for x in (ours, solved)]
        yield "optimum, regularised value", abs(np.array([objectives[0] - objectives[1]]))
        yield "optimum, regularised", abs(ours - solved) * sum(problem.bounds.values())


def convex_solver(q: np.ndarray, old: np.ndarray, lift: float, temperature: float) -> np.ndarray:
    """The x, (A,), that maximises E[x Q + T H(x)] subject to E[x] = lift: SciPy's sequential quadratic programming."""
    solution = optimize.minimize(
        lambda x: -old @ (x * q + temperature * _entropy(x)),
        np.full_like(q, lift),
        jac=lambda x: -old * (q - temperature * special.logit(x)),
        bounds=[(1e-9, 1 - 1e-9)] * len(q),
        constraints={"type": "eq", "fun": lambda x: old @ x - lift, "jac": lambda x: old},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    return solution.x


def _entropy(x: np.ndarray) -> np.ndarray:
    return special.entr(x) + special.entr(1 - x)


def improvement(problem: Problem, rng: np.random.Generator) -> Errors:
    """Monotonic improvement: `η(π*) = η(π0) + ε · B` with `B = E_{s~d_π*, a~π0}[sign(Ã) Ã] ≥ 0`.

    d is discounted and not normalised, the scale on which the performance-difference lemma reads
    η(π) − η(π0) = E_{s~d_π, a~π0}[ρ A]. Because E[ρ*] = 1 and E[A] = 0, a baseline changes nothing: the right side is
    E[(ρ* − 1) Ã] at π*. Tied actions have Ã = 0, whatever their ρ*.

    Departs from the paper: asymmetric bounds, where the same line gives E[ε_high Ã⁺ + ε_low Ã⁻] for ε · B. At a
    temperature > 0 improvement remains: E[(ρ* − 1) Q] is the covariance of Q and an increasing function of it.
    """
    mdps, old = problem.mdps, problem.old
    q, before = mdps.action_values(old), mdps.returns(old)
    policies = [old * problem.optimal_ratio(q), old * problem.regularised_ratio(q, _temperature(q, rng))]
    for policy in policies:
        yield "improvement, π* is a policy", _infeasibility(policy, problem)
        yield "improvement, ≥ 0", np.maximum(before - mdps.returns(policy), 0)
    gain = mdps.returns(policies[0]) - before
    yield "improvement, η(π*) − η(π0) = ε·B", abs(gain - _epsilon_b(problem, q, policies[0]))
    yield from _repeated(problem)


def _epsilon_b(problem: Problem, q: np.ndarray, optimal: np.ndarray) -> np.ndarray:
    """ε · B, (n,); for asymmetric bounds what stands in its place."""
    centred = q - quantiles(q, problem.old, problem.lift)[0]
    gains = np.where(centred > 0, problem.bounds["epsilon_high"], -problem.bounds["epsilon_low"]) * centred
    return _mean(problem.mdps.occupancy(optimal), problem.old, gains)


def quantiles(q: np.ndarray, old: np.ndarray, lift: float) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest 1 − lift quantile of Q under π0, (..., A) → (..., 1) each: the levels of bounds are 1 − lift.

    They differ where some of the actions have that probability exactly, as half of an even group.
    """
    order = q.argsort(-1)
    below = np.take_along_axis(old, order, axis=-1).cumsum(-1)
    ascending, level = np.take_along_axis(q, order, axis=-1), 1 - lift
    least = (below >= level - 1e-12).argmax(-1)[..., None]
    greatest = (below > level + 1e-12).argmax(-1)[..., None]
    return np.take_along_axis(ascending, least, axis=-1), np.take_along_axis(ascending, greatest, axis=-1)


def _infeasibility(policy: np.ndarray, problem: Problem) -> np.ndarray:
    """How far a policy is from one within the bounds, in probability, (n, S)."""
    least, most = problem.old * (1 - problem.bounds["epsilon_low"]), problem.old * (1 + problem.bounds["epsilon_high"])
    outside = np.maximum(least - policy, policy - most).max(-1)
    return np.maximum(outside, abs(policy.sum(-1) - 1))


def _repeated(problem: Problem) -> Errors:
    """Exact updates π ← π ρ*, one after another, to the optimal return."""
    mdps, policy = problem.mdps, problem.old
    best, current = mdps.optimal_returns(), mdps.returns(policy)
    fall, (allowed, _) = np.zeros_like(current), CHECKS["improvement, repeated"]
    for _ in range(UPDATES):
        if (best - current).max() <= REACHED or fall.max() > allowed:
            break
        policy = policy * weighted_ratio(mdps.action_values(policy), policy, problem.bounds)
        policy /= policy.sum(-1, keepdims=True)  # rounding alone: that E[ρ*] = 1 is checked elsewhere
        previous, current = current, mdps.returns(policy)
        fall = np.maximum(fall, previous - current)
    yield "improvement, repeated", fall
    yield "improvement, optimal return", abs(best - current)


@dataclass(frozen=True)
class LowerBound:
    """The bound at a policy π, every field (n,): `slack` is what η(π) is above it, with the exact `delta`."""

    slack: np.ndarray
    slack_by_algebra: np.ndarray
    delta: np.ndarray
    worst_delta: np.ndarray


def lower_bound(problem: Problem, ratio: np.ndarray, centred_weight: bool = False) -> LowerBound:
    """`η(π) ≥ η(π0) + ε · B − E_{s~d_π0, a~π0}[l_BPO] − δ(π, π*)` at π = π0 · ratio.

    With d_0, d_*, d for π0, π*, π and g_π(s) = E_{a~π}[A], the performance-difference lemma at π and at π* gives

        η(π) − η(π*) = Σ d g_π − Σ d_* g_π* = E_{d_0, π0}[(ρ − ρ*) A] − δ,
        δ(π, π*) = Σ (d_0 − d) g_π − Σ (d_0 − d_*) g_π*,

    δ being 0 at π = π*. With η(π*) = η(π0) + ε · B and x ≥ −|x| the bound follows, and its slack is
    E_{d_0, π0}[(ρ − ρ*) A + |(ρ − ρ*) A|] = 2 E[((ρ − ρ*) A)⁺]. Since E[ρ − ρ*] = 0, A may be Ã in all of this; inside
    the bounds (ρ − ρ*) Ã ≤ 0, so that the loss with weight |Ã| leaves no slack at all there.

    In the worst case: δ = −Σ (d − d_*) g_π − Σ (d_* − d_0)(g_π − g_π*), where |g_π| ≤ max|A|, |g_π − g_π*| ≤ 2 max|A| D
    with D = max_s TV(π, π*), and ‖d_π − d_π'‖₁ ≤ 2γ / (1 − γ) · E_{d_π'}[TV(π, π')]. A policy within the bounds has
    TV(π*, π0) ≤ ε_low ε_high / (ε_low + ε_high) =: h / 2 (h = ε when they are equal). Together

        |δ| ≤ 2 γ (1 + h) / (1 − γ)² · max|A| · D.

    Args:
        problem: Decision processes, π0 and bounds.
        ratio: ρ = π / π0, (n, S, A), positive.
        centred_weight: Take |Ã| for |A| in the loss.

    Departs from the paper: this δ, its worst case and the slack are derived here; the paper's own δ is not used.
    """
    mdps, old = problem.mdps, problem.old
    q = mdps.action_values(old)
    advantage = _advantage(q, old)
    target = problem.optimal_ratio(q)
    weight = q - quantiles(q, old, problem.lift)[0] if centred_weight else advantage
    loss = _core(bounded_ratio_loss, np.log(ratio), target, weight)
    policy, optimal = old * ratio, old * target
    d_0, d_star, d = (mdps.occupancy(one) for one in (old, optimal, policy))
    gain, gain_star = ((one * advantage).sum(-1) for one in (policy, optimal))  # g_π, (n, S)
    delta = ((d_0 - d) * gain - (d_0 - d_star) * gain_star).sum(-1)
    bound = mdps.returns(old) + _epsilon_b(problem, q, optimal) - _mean(d_0, old, loss) - delta
    gamma, distance = mdps.discount, abs(policy - optimal).sum(-1).max(-1) / 2
    h = 2 * problem.lift * problem.bounds["epsilon_high"]
    return LowerBound(
        slack=mdps.returns(policy) - bound,
        slack_by_algebra=2 * _mean(d_0, old, np.maximum((ratio - target) * weight, 0)),
        delta=delta,
        worst_delta=2 * gamma * (1 + h) / (1 - gamma) ** 2 * abs(advantage).max((1, 2)) * distance,
    )


def bounds_on_return(problem: Problem, rng: np.random.Generator, slacks: dict[str, list[float]]) -> Errors:
    """The lower bound at π*, at policies inside the bounds and at any; `slacks` gets the slacks times 1 − γ."""
    at_optimum = lower_bound(problem, problem.optimal_ratio(problem.mdps.action_values(problem.old)))
    yield "lower bound, tight at π*", abs(at_optimum.slack)
    inside, anywhere = random_ratios(problem, rng)
    for where, ratio in (("inside the bounds", inside), ("anywhere", anywhere)):
        found = lower_bound(problem, ratio)
        yield "lower bound, holds", np.maximum(-found.slack, 0)
        yield "lower bound, its slack", abs(found.slack - found.slack_by_algebra)
        yield "lower bound, worst case of δ", np.maximum(abs(found.delta) - found.worst_delta, 0)
        scale = 1 - problem.mdps.discount
        slacks[f"π {where}, δ exact"] += (scale * found.slack).tolist()
        slacks[f"π {where}, δ worst case"] += (scale * (found.slack + found.worst_delta - found.delta)).tolist()
    yield "lower bound, weighted by |Ã|", abs(lower_bound(problem, inside, centred_weight=True).slack)


def random_ratios(problem: Problem, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Ratios, (n, S, A), of a random policy that touches a bound in every state, and of one that knows no bounds."""
    old, (low, high) = problem.old, problem.bounds.values()
    move = rng.normal(size=old.shape)
    move -= (old * move).sum(-1, keepdims=True)
    inside = 1 + move / np.maximum(move.max(-1, keepdims=True) / high, -move.min(-1, keepdims=True) / low)
    return inside, special.softmax(rng.normal(scale=2.0, size=old.shape), axis=-1) / old


def ppo(problem: Problem, rng: np.random.Generator) -> Errors:
    """PPO seen through the BPO loss: `−min(ρ A, clip(ρ) A)` and `|A| · |ρ − (1 + ε · sign A)|` have the same gradient.

    So it is inside the bounds. Outside them PPO's is 0 only past the target, on its side away from 1, and there BPO's
    turns back unless `overshoot_slope` is 0; on the other side of 1 they stay the same.
    """
    q, (low, high) = problem.mdps.action_values(problem.old), problem.bounds.values()
    advantage = torch.from_numpy(_advantage(q, problem.old))
    targets = [target_ratio(advantage, **problem.bounds, temperature=0.0)]
    if problem.uniform:
        options = {"num_generations": q.shape[-1], "baseline": "mean", "temperature": 0.0}
        grouped = _core(group_target_ratio, q.reshape(-1), **options, **problem.bounds)
        targets.append(torch.from_numpy(grouped).view_as(advantage))

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(loss.sum(), log_ratio)[0]

    def clipped(log_ratio: torch.Tensor) -> torch.Tensor:
        ratio = log_ratio.exp()
        return -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)

    inside = np.log(rng.uniform(1 - low, 1 + high, size=q.shape))
    anywhere = rng.normal(scale=1.5, size=q.shape)
    beside_target = np.log(np.where(advantage > 0, 1 + high, 1 - low)) + rng.choice([-1e-6, 1e-6], size=q.shape)
    log_ratio = torch.from_numpy(np.stack([inside, anywhere, beside_target])).requires_grad_()
    ratio = log_ratio.exp().detach()
    past = torch.where(advantage > 0, ratio > 1 + high, ratio < 1 - low)
    back = advantage.abs() * ratio * (ratio - 1).sign()
    of_ppo = gradient(clipped(log_ratio))
    for target in targets:
        of_bpo = gradient(bounded_ratio_loss(log_ratio, target, advantage))
        of_bpo_without_slope = gradient(bounded_ratio_loss(log_ratio, target, advantage, overshoot_slope=0.0))
        yield "PPO, gradient", (of_bpo - of_ppo)[~past].abs().numpy()
        yield "PPO, past the target", (of_ppo.abs() + (of_bpo - back).abs())[past].numpy()
        yield "PPO, overshoot_slope 0", (of_bpo_without_slope - of_ppo).abs().numpy()


def cross_entropy_method(problem: Problem, rng: np.random.Generator) -> Errors:
    """Link to the Cross-Entropy Method: with c_l = 0 and c_h = 1/q, ρ* weighs the elite, the top q of a group, by 1/q.

    Values that tie at the edge of the elite set get what breaking the ties at random would give them on average.
    """
    size = int(rng.integers(2, 33))
    elite = int(rng.integers(1, size))
    values = rng.normal(size=(len(problem.old), size))
    if problem.twins:
        values = values.round()
    weights = np.zeros_like(values)
    np.put_along_axis(weights, values.argsort(-1)[:, -elite:], size / elite, axis=-1)
    equal = values[:, :, None] == values[:, None, :]
    expected = (equal * weights[:, None, :]).sum(-1) / equal.sum(-1)
    bounds = {"epsilon_low": 1.0, "epsilon_high": size / elite - 1}
    grouped = {"num_generations": size, "baseline": "exact", "temperature": 0.0, **bounds}
    yield "cross-entropy method", abs(_core(exact_target_ratio, values, **bounds) - expected)
    yield "cross-entropy method", abs(_core(group_target_ratio, values.reshape(-1), **grouped) - expected.reshape(-1))
    yield "cross-entropy method", abs(weighted_ratio(values, np.full_like(values, 1 / size), bounds) - expected)


def baselines(problem: Problem, rng: np.random.Generator) -> Errors:
    """Median loss: its minimiser under π0 is the (c_h − 1)/(c_h − c_l) quantile of Q; with τ > 0 it makes E[ρ*] = 1."""
    q, old, bounds = problem.mdps.action_values(problem.old), problem.old, problem.bounds
    least, greatest = quantiles(q, old, problem.lift)

    def distance(baseline: np.ndarray) -> np.ndarray:
        return np.maximum(np.maximum(least - baseline, baseline - greatest), 0)

    yield "median loss, quantile", distance(hard_baseline(q, old, bounds))
    yield "median loss, τ → 0", distance(smooth_baseline(q, old, bounds, 1e-9))
    temperature = _temperature(q, rng)
    lifts = special.expit((q - smooth_baseline(q, old, bounds, temperature)) / temperature)
    yield "median loss, τ > 0", abs((old * lifts).sum(-1) - problem.lift)


def _advantage(q: np.ndarray, old: np.ndarray) -> np.ndarray:
    """A = Q − V, (n, S, A), exactly 0 where all the actions of a state tie: measured from one of them."""
    difference = q - q[..., :1]
    return difference - (old * difference).sum(-1, keepdims=True)


def _mean(states: np.ndarray, old: np.ndarray, values: np.ndarray) -> np.ndarray:
    """E_{s~d, a~π0}[values], (n,), on the scale of d."""
    return (states[..., None] * old * values).sum((1, 2))


def _temperature(q: np.ndarray, rng: np.random.Generator) -> float:
    """Random, of the order of the differences between a state's action values."""
    return float(rng.uniform(0.3, 1.0) * max((q - q.mean(-1, keepdims=True)).std(), 0.1))


# ---------------------------------------------------------------------------------------------------------------------
# the command
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """One line of the table; `worst` is None where it is not finite."""

    check: str
    covers: str
    cases: int
    worst: float | None
    tolerance: float
    passed: bool


@dataclass(frozen=True)
class Findings:
    """Results in the order of `CHECKS`, and the 0, 5, 50, 95 and 100 % quantiles of the lower bound's slack."""

    mdps: int
    seed: int
    seconds: float
    results: list[Result]
    slack: dict[str, list[float]]


def run(mdps: int, seed: int) -> Findings:
    """Every check on random decision processes.

    Args:
        mdps: How many; at least `KINDS`, so that each kind occurs.
        seed: What they are drawn from, ≥ 0.

    Raises:
        ValueError: There are too few, or the seed is negative.
    """
    if mdps < KINDS:
        raise ValueError(f"--mdps {mdps} leaves some of the {KINDS} kinds of problem out. Write {KINDS} or more.")
    if seed < 0:
        raise ValueError(f"--seed {seed} is no seed. Write 0 or more.")
    began = time.perf_counter()
    errors: dict[str, list[np.ndarray]] = defaultdict(list)
    slacks: dict[str, list[float]] = defaultdict(list)
    batches = max(KINDS, -(-mdps // BATCH))
    for batch in range(batches):
        rng = np.random.default_rng([seed, batch])
        problem = random_problem(rng, mdps // batches + (batch < mdps % batches), kind=batch % KINDS)
        for check in (optimum, improvement, ppo, cross_entropy_method, baselines):
            for name, found in check(problem, rng):
                errors[name].append(found.reshape(-1))
        for name, found in bounds_on_return(problem, rng, slacks):
            errors[name].append(found)
    results = [_result(name, np.concatenate(errors[name])) for name in CHECKS]
    quantile = {name: np.quantile(values, [0, 0.05, 0.5, 0.95, 1]).tolist() for name, values in slacks.items()}
    return Findings(mdps, seed, time.perf_counter() - began, results, quantile)


def _result(name: str, errors: np.ndarray) -> Result:
    tolerance, covers = CHECKS[name]
    worst = float(errors.max()) if np.isfinite(errors).all() else None
    return Result(name, covers, errors.size, worst, tolerance, worst is not None and worst <= tolerance)


def table(findings: Findings) -> str:
    """What the command prints."""
    lines = [f"{'check':<32} {'cases':>7} {'worst':>7} {'allowed':>7}        covers"]
    for found in findings.results:
        worst = "invalid" if found.worst is None else f"{found.worst:.1e}"
        verdict = "pass" if found.passed else "FAIL"
        numbers = f"{found.cases:>7} {worst:>7} {found.tolerance:>7.0e}"
        lines.append(f"{found.check:<32} {numbers}  {verdict}  {found.covers}")
    lines += [
        "",
        f"{'slack of the lower bound · (1 − γ)':<40} {'min':>9} {'5 %':>9} {'median':>9} {'95 %':>9} {'max':>9}",
    ]
    for name, quantile in findings.slack.items():
        lines.append(f"{name:<40} " + " ".join(f"{value:>9.2g}" for value in quantile))
    failed = sum(not found.passed for found in findings.results)
    verdict = f"{failed} of {len(findings.results)} checks FAILED" if failed else f"all {len(CHECKS)} checks pass"
    return "\n".join([*lines, "", f"{verdict}: {findings.mdps} MDPs, seed {findings.seed}, {findings.seconds:.0f} s"])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the checks of the command line; the module says how it is used."""
    parser = _Parser(
        prog="python -m evals.theory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mdps", type=int, default=20_000, help="random decision processes (20000)")
    parser.add_argument("--seed", type=int, default=0, help="what they are drawn from (0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    options = parser.parse_args(argv)
    try:
        if options.json is not None and (options.json.is_dir() or not options.json.absolute().parent.is_dir()):
            raise ValueError(f"--json {str(options.json)!r} is no file in a folder that is there. Write another.")
        findings = run(options.mdps, options.seed)
        if options.json is not None:
            options.json.write_text(json.dumps(asdict(findings), indent=1, ensure_ascii=False) + "\n")
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(table(findings))
    raise SystemExit(0 if all(found.passed for found in findings.results) else 1)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"evals.theory: error: {message}", file=sys.stderr, flush=True)
        raise SystemExit(2)
