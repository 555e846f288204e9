"""The theorems of Bounded Ratio Reinforcement Learning as checks. Each check yields its name and an array of errors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import special

from gbpo.core import (
    bounded_ratio_loss,
    exact_target_ratio,
    group_target_ratio,
    target_ratio,
    widened_target_ratio,
)

from .independent import binary_entropy, convex_solver, linear_programme, quantiles
from .problem import Problem, call_core, hard_baseline, smooth_baseline, weighted_ratio

MAX_SOLVED_STATES = 8  # per batch; the convex solver solves one state at a time
MAX_UPDATES = 1000  # exact updates π ← π ρ* until the return is optimal
OPTIMAL_WITHIN = 1e-10  # the updates stop when the return differs from the optimum by this or less
TOLERATED_FALL = 1e-9  # the updates stop if the return falls by more than this

Errors = Iterable[tuple[str, np.ndarray]]


def optimum(problem: Problem, rng: np.random.Generator) -> Errors:
    """BRRL optimum: in every state, ρ* maximises `E_{a~π0}[ρ Q]` subject to `c_l ≤ ρ ≤ c_h` and `E[ρ] = 1`."""
    q, old, bounds = problem.mdps.action_values(problem.old), problem.old, problem.bounds
    best = linear_programme(q, old * (1 - bounds["epsilon_low"]), old * (1 + bounds["epsilon_high"]))
    ratios = [weighted_ratio(q, old, bounds)]
    if problem.uniform:
        actions = {"num_generations": q.shape[-1], "temperature": 0.0, **bounds}
        exact = call_core(group_target_ratio, q.reshape(-1), baseline="exact", **actions).reshape(q.shape)
        ratios += [exact, problem.optimal_ratio(q)]
        if not problem.duplicates and bounds["epsilon_low"] == bounds["epsilon_high"]:
            published = call_core(group_target_ratio, q.reshape(-1), baseline="median", **actions).reshape(q.shape)
            yield "optimum, published median", abs((old * published - best) * q).sum(-1)
    shared = _sums_of_ties(best, q) / _sums_of_ties(old, q)
    for ratio in ratios:
        yield "optimum, value", abs(((old * ratio - best) * q).sum(-1))
        yield "optimum, ratios", abs(ratio - shared)
    yield from _regularised(problem, q, rng)


def _sums_of_ties(policy: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Sum of the probabilities of the actions that have the same value as each action, (n, S, A).

    For tied actions, a linear programme determines only this sum.
    """
    equal = q[..., :, None] == q[..., None, :]  # (n, S, A, A)
    return (equal * policy[..., None, :]).sum(-1)


def _regularised(problem: Problem, q: np.ndarray, rng: np.random.Generator) -> Errors:
    """Regularised BRRL optimum: the objective that `ρ* = c_l + (c_h − c_l) · σ((Q − μ) / T)` maximises.

    Let x = (ρ − c_l) / (c_h − c_l) in [0, 1], and H(x) = −x ln x − (1 − x) ln(1 − x). The objective is

        E_{a~π0}[ρ Q] + T (c_h − c_l) · E_{a~π0}[H(x)]   subject to   E[x] = (1 − c_l) / (c_h − c_l), that is E[ρ] = 1.

    Divided by c_h − c_l and up to a constant, this is E[x Q + T H(x)], which is strictly concave. Let μ be the
    multiplier of the constraint. Since H'(x) = −logit(x), the objective is stationary if Q − μ = T · logit(x), that is
    x = σ((Q − μ) / T).
    """
    temperature = _temperature(q, rng)
    ratio = problem.regularised_ratio(q, temperature)
    lift = (ratio - 1 + problem.bounds["epsilon_low"]) / sum(problem.bounds.values())
    actions, centred = q.shape[-1], q - q.mean(-1, keepdims=True)
    for state in rng.integers(q.size // actions, size=min(MAX_SOLVED_STATES, len(q))):
        ours, values, weights = (array.reshape(-1, actions)[state] for array in (lift, centred, problem.old))
        solved = convex_solver(values, weights, problem.lift, temperature)
        objectives = [weights @ (x * values + temperature * binary_entropy(x)) for x in (ours, solved)]
        yield "optimum, regularised value", abs(np.array([objectives[0] - objectives[1]]))
        yield "optimum, regularised", abs(ours - solved) * sum(problem.bounds.values())


def improvement(problem: Problem, rng: np.random.Generator) -> Errors:
    """Monotonic improvement: `η(π*) = η(π0) + ε · B` with `B = E_{s~d_π*, a~π0}[sign(Ã) Ã] ≥ 0`.

    The state distribution d is discounted and not normalised, so that the performance-difference lemma is
    η(π) − η(π0) = E_{s~d_π, a~π0}[ρ A]. Since E[ρ*] = 1 and E[A] = 0, the right side at π* equals E[(ρ* − 1) Ã] for any
    baseline. Actions whose value equals the baseline have Ã = 0, so their ρ* does not matter.

    Departs from the paper: bounds may be asymmetric. Then E[ε_high Ã⁺ + ε_low Ã⁻] replaces ε · B. At a temperature
    above 0 the return still improves: E[(ρ* − 1) Q] is the covariance of Q and ρ*, and it is not negative, because ρ*
    increases with Q.
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


def other_bounds(problem: Problem, rng: np.random.Generator) -> Errors:
    """Bounds of width π0^(-q): the policy that maximises E_{a~π}[Q] subject to `|π - π0| ≤ ε π0^(1 - q)`.

    Let t = 1 + ε · sign(Q − μ), and ρ* = 1 + (t − 1) π0^(-q). Then E_{a~π0}[ρ*] = 1 means Σ w (t − 1) = 0 with the
    weights w = π0^(1 - q). So t is the BRRL optimum of a policy proportional to w, and μ is the median of Q under w.
    With q = 0 this is the median under π0. With q = 1, where the probability itself is bounded, every action counts
    once. The improvement is

        η(π*) − η(π0) = E_{s~d_π*}[Σ_a (π* − π0) Q] = ε · E_{s~d_π*}[Σ_a w |Q − μ|].

    Bounds may be asymmetric: ε_high above μ and ε_low below, with another quantile of Q for the median. They are chosen
    so small that 0 ≤ π ≤ 1 holds inside them. Wider bounds end at 0 and 1: then π0 ρ* with t = 1 + ε · sign(A) is the
    highest probability that the bounds allow where A > 0, and the lowest where A < 0. DPPO's gradient is checked too.
    """
    mdps, old = problem.mdps, problem.old
    q = mdps.action_values(old)
    advantage = _advantage(q, old)
    target = call_core(target_ratio, advantage, **problem.bounds, temperature=0.0)
    for exponent in (0.5, 1.0, float(rng.uniform())):
        weights = old ** (1 - exponent)
        room = np.minimum(old, 1 - old) / weights  # least distance of π0 to 0 and 1, in units of the width
        scale = 0.9 * float(room.min()) / max(problem.bounds.values())
        bounds = {name: scale * value for name, value in problem.bounds.items()}
        counted = weights / weights.sum(-1, keepdims=True)
        ratio = call_core(widened_target_ratio, weighted_ratio(q, counted, bounds), np.log(old), exponent=exponent)
        optimal = old * ratio
        best = linear_programme(q, old - bounds["epsilon_low"] * weights, old + bounds["epsilon_high"] * weights)
        yield "other bounds, value", abs(((optimal - best) * q).sum(-1))
        yield "other bounds, policy", abs(_sums_of_ties(optimal, q) - _sums_of_ties(best, q))
        centred = q - quantiles(q, counted, problem.lift)[0]
        gains = np.where(centred > 0, bounds["epsilon_high"], -bounds["epsilon_low"]) * centred
        gain = mdps.returns(optimal) - mdps.returns(old)
        yield "other bounds, improvement", abs(gain - _mean(mdps.occupancy(optimal), weights, gains))
        lowest = np.maximum(old - problem.bounds["epsilon_low"] * weights, 0)
        highest = np.minimum(old + problem.bounds["epsilon_high"] * weights, 1)
        furthest = np.where(advantage > 0, highest, lowest)
        ratio = call_core(widened_target_ratio, target, np.log(old), exponent=exponent)
        yield "other bounds, between 0 and 1", abs(old * ratio - furthest)[advantage != 0]
    yield from _dppo(problem, q, rng)


def _dppo(problem: Problem, q: np.ndarray, rng: np.random.Generator) -> Errors:
    """DPPO as a special case: q = 1, κ = 0 and t = 1 + ε · sign(A).

    DPPO's gradient is that of −ρ A, but 0 where A > 0 and π − π0 > ε_high, or A < 0 and π − π0 < −ε_low.
    """
    low, high = problem.bounds.values()
    old = torch.from_numpy(problem.old)
    advantage = torch.from_numpy(_advantage(q, problem.old))
    log_ratio = torch.from_numpy(rng.normal(scale=1.5, size=q.shape)).requires_grad_()
    ratio = log_ratio.exp().detach()
    moved = old * (ratio - 1)
    masked = torch.where(advantage > 0, moved > high, moved < -low)
    expected = torch.where(masked, 0.0, -advantage * ratio)
    target = target_ratio(advantage, **problem.bounds, temperature=0.0)
    target = widened_target_ratio(target, old.log(), exponent=1.0)
    loss = bounded_ratio_loss(log_ratio, target, advantage, overshoot_slope=0.0)
    gradient = torch.autograd.grad(loss.sum(), log_ratio)[0]
    possible = old * ratio <= 1  # π is a probability
    yield "DPPO, gradient", (gradient - expected)[possible].abs().numpy()


def _epsilon_b(problem: Problem, q: np.ndarray, optimal: np.ndarray) -> np.ndarray:
    """ε · B, (n,). For asymmetric bounds, E[ε_high Ã⁺ + ε_low Ã⁻]."""
    centred = q - quantiles(q, problem.old, problem.lift)[0]
    gains = np.where(centred > 0, problem.bounds["epsilon_high"], -problem.bounds["epsilon_low"]) * centred
    return _mean(problem.mdps.occupancy(optimal), problem.old, gains)


def _infeasibility(policy: np.ndarray, problem: Problem) -> np.ndarray:
    """Largest violation of the bounds, or of the sum of probabilities, by a policy, (n, S)."""
    least, most = problem.old * (1 - problem.bounds["epsilon_low"]), problem.old * (1 + problem.bounds["epsilon_high"])
    outside = np.maximum(least - policy, policy - most).max(-1)
    return np.maximum(outside, abs(policy.sum(-1) - 1))


def _repeated(problem: Problem) -> Errors:
    """Repeat exact updates π ← π ρ* until the return is optimal."""
    mdps, policy = problem.mdps, problem.old
    best, current = mdps.optimal_returns(), mdps.returns(policy)
    fall = np.zeros_like(current)
    for _ in range(MAX_UPDATES):
        if (best - current).max() <= OPTIMAL_WITHIN or fall.max() > TOLERATED_FALL:
            break
        policy = policy * weighted_ratio(mdps.action_values(policy), policy, problem.bounds)
        policy /= policy.sum(-1, keepdims=True)  # corrects only rounding errors; another check tests E[ρ*] = 1
        previous, current = current, mdps.returns(policy)
        fall = np.maximum(fall, previous - current)
    yield "improvement, repeated", fall
    yield "improvement, optimal return", abs(best - current)


@dataclass(frozen=True)
class LowerBound:
    """The lower bound at a policy π. All fields have the shape (n,).

    Args:
        slack: η(π) minus the bound with the exact δ.
        slack_by_algebra: 2 E[((ρ − ρ*) A)⁺], which the slack must equal.
        delta: The exact δ.
        worst_delta: Worst case of |δ|.
    """

    slack: np.ndarray
    slack_by_algebra: np.ndarray
    delta: np.ndarray
    worst_delta: np.ndarray


def lower_bound(problem: Problem, ratio: np.ndarray, centred_weight: bool = False) -> LowerBound:
    """`η(π) ≥ η(π0) + ε · B − E_{s~d_π0, a~π0}[l_BPO] − δ(π, π*)` at π = π0 · ratio.

    Let d_0, d_* and d be the state distributions of π0, π* and π, and g_π(s) = E_{a~π}[A]. The performance-difference
    lemma at π and at π* gives

        η(π) − η(π*) = Σ d g_π − Σ d_* g_π* = E_{d_0, π0}[(ρ − ρ*) A] − δ,
        δ(π, π*) = Σ (d_0 − d) g_π − Σ (d_0 − d_*) g_π*,

    where δ is 0 at π = π*. The bound follows from η(π*) = η(π0) + ε · B and x ≥ −|x|. The slack of the bound is
    E_{d_0, π0}[(ρ − ρ*) A + |(ρ − ρ*) A|] = 2 E[((ρ − ρ*) A)⁺]. Since E[ρ − ρ*] = 0, Ã can replace A everywhere. Inside
    the bounds, (ρ − ρ*) Ã ≤ 0, so the slack is 0 if the loss has the weight |Ã|.

    Worst case of δ: δ = −Σ (d − d_*) g_π − Σ (d_* − d_0)(g_π − g_π*). Here |g_π| ≤ max|A| and
    |g_π − g_π*| ≤ 2 max|A| D with D = max_s TV(π, π*), and ‖d_π − d_π'‖₁ ≤ 2γ / (1 − γ) · E_{d_π'}[TV(π, π')]. A policy
    within the bounds has TV(π*, π0) ≤ ε_low ε_high / (ε_low + ε_high) = h / 2, with h = ε for symmetric bounds. Hence

        |δ| ≤ 2 γ (1 + h) / (1 − γ)² · max|A| · D.

    Args:
        problem: Decision processes, π0 and bounds.
        ratio: ρ = π / π0, (n, S, A), positive.
        centred_weight: Use the weight |Ã| instead of |A| in the loss.

    Departs from the paper: δ, its worst case and the slack are our own derivation. The paper defines δ differently.
    """
    mdps, old = problem.mdps, problem.old
    q = mdps.action_values(old)
    advantage = _advantage(q, old)
    target = problem.optimal_ratio(q)
    weight = q - quantiles(q, old, problem.lift)[0] if centred_weight else advantage
    loss = call_core(bounded_ratio_loss, np.log(ratio), target, weight)
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
    """The lower bound at π*, at policies inside the bounds and at arbitrary policies.

    Args:
        problem: Decision processes, π0 and bounds.
        rng: Random generator.
        slacks: The slacks, times 1 − γ, are appended to these lists.
    """
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
    """Ratios, (n, S, A), of a random policy that touches a bound in every state, and of an arbitrary random policy."""
    old, (low, high) = problem.old, problem.bounds.values()
    move = rng.normal(size=old.shape)
    move -= (old * move).sum(-1, keepdims=True)
    inside = 1 + move / np.maximum(move.max(-1, keepdims=True) / high, -move.min(-1, keepdims=True) / low)
    return inside, special.softmax(rng.normal(scale=2.0, size=old.shape), axis=-1) / old


def ppo(problem: Problem, rng: np.random.Generator) -> Errors:
    """PPO as a special case: `−min(ρ A, clip(ρ) A)` and `|A| · |ρ − (1 + ε · sign A)|` have the same gradient.

    The gradients are equal unless ρ is past the target, that is above 1 + ε for A > 0 or below 1 − ε for A < 0. There,
    PPO's gradient is 0, and BPO's gradient points back to the target unless `overshoot_slope` is 0.
    """
    q, (low, high) = problem.mdps.action_values(problem.old), problem.bounds.values()
    advantage = torch.from_numpy(_advantage(q, problem.old))
    targets = [target_ratio(advantage, **problem.bounds, temperature=0.0)]
    if problem.uniform:
        options = {"num_generations": q.shape[-1], "baseline": "mean", "temperature": 0.0}
        grouped = call_core(group_target_ratio, q.reshape(-1), **options, **problem.bounds)
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
    slope = 0.3
    ppo_gradient = gradient(clipped(log_ratio))
    for target in targets:
        bpo_gradient = gradient(bounded_ratio_loss(log_ratio, target, advantage))
        sloped = gradient(bounded_ratio_loss(log_ratio, target, advantage, overshoot_slope=slope))
        without_slope = gradient(bounded_ratio_loss(log_ratio, target, advantage, overshoot_slope=0.0))
        yield "PPO, gradient", (bpo_gradient - ppo_gradient)[~past].abs().numpy()
        yield "PPO, past the target", (ppo_gradient.abs() + (bpo_gradient - back).abs())[past].numpy()
        expected = torch.where(past, slope * back, ppo_gradient)
        yield "PPO, overshoot_slope 0.3", (sloped - expected).abs().numpy()
        yield "PPO, overshoot_slope 0", (without_slope - ppo_gradient).abs().numpy()


def cross_entropy_method(problem: Problem, rng: np.random.Generator) -> Errors:
    """Cross-entropy method as a special case: with c_l = 0 and c_h = 1/q, ρ* is 1/q on the top fraction q of a group.

    Values that tie at the edge of this elite set get the weight that random tie-breaking gives them on average.
    """
    size = int(rng.integers(2, 33))
    elite = int(rng.integers(1, size))
    values = rng.normal(size=(len(problem.old), size))
    if problem.duplicates:
        values = values.round()
    weights = np.zeros_like(values)
    np.put_along_axis(weights, values.argsort(-1)[:, -elite:], size / elite, axis=-1)
    equal = values[:, :, None] == values[:, None, :]
    expected = (equal * weights[:, None, :]).sum(-1) / equal.sum(-1)
    bounds = {"epsilon_low": 1.0, "epsilon_high": size / elite - 1}
    grouped = {"num_generations": size, "baseline": "exact", "temperature": 0.0, **bounds}
    yield "cross-entropy method", abs(call_core(exact_target_ratio, values, **bounds) - expected)
    yield (
        "cross-entropy method",
        abs(call_core(group_target_ratio, values.reshape(-1), **grouped) - expected.reshape(-1)),
    )
    yield "cross-entropy method", abs(weighted_ratio(values, np.full_like(values, 1 / size), bounds) - expected)


def baselines(problem: Problem, rng: np.random.Generator) -> Errors:
    """Median loss: the minimiser under π0 is the (c_h − 1)/(c_h − c_l) quantile of Q; at τ > 0 it gives E[ρ*] = 1."""
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
    """A = Q − V, (n, S, A).

    Q of action 0 is subtracted first, so that A is exactly 0 if all actions of a state have the same Q.
    """
    difference = q - q[..., :1]
    return difference - (old * difference).sum(-1, keepdims=True)


def _mean(states: np.ndarray, old: np.ndarray, values: np.ndarray) -> np.ndarray:
    """E_{s~d, a~π0}[values], (n,). Like d, the result is not normalised."""
    return (states[..., None] * old * values).sum((1, 2))


def _temperature(q: np.ndarray, rng: np.random.Generator) -> float:
    """Random temperature, of the same order as the differences between the action values of a state."""
    return float(rng.uniform(0.3, 1.0) * max((q - q.mean(-1, keepdims=True)).std(), 0.1))
