"""Run the checks on random problems."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from .checks import (
    MAX_UPDATES,
    TOLERATED_FALL,
    baselines,
    bounds_on_return,
    cross_entropy_method,
    improvement,
    optimum,
    other_bounds,
    ppo,
)
from .problem import KINDS, random_problem

BATCH = 100  # decision processes solved at once

# name: (tolerance, meaning)
CHECKS = {
    "optimum, value": (1e-9, "E[ρ*Q] = value of the linear programme, in every state"),
    "optimum, ratios": (1e-8, "ρ* = solution of the linear programme, averaged over tied actions"),
    "optimum, published median": (1e-9, "group median = linear programme; symmetric bounds, no ties"),
    "optimum, regularised": (1e-5, "ρ* = solution of a convex solver, in some states"),
    "optimum, regularised value": (1e-9, "objective at ρ* = objective of the solver, same states"),
    "improvement, π* is a policy": (1e-9, "E[ρ*] = 1 and ρ* within the bounds; regularised too"),
    "improvement, η(π*) − η(π0) = ε·B": (1e-9, "asymmetric bounds: E[ε_high Ã⁺ + ε_low Ã⁻] instead of ε·B"),
    "improvement, ≥ 0": (1e-9, "fall of η from π0 to π*; regularised too"),
    "improvement, repeated": (TOLERATED_FALL, f"largest fall of η in up to {MAX_UPDATES} exact updates"),
    "improvement, optimal return": (1e-9, "distance of η to the optimum (policy iteration) after these updates"),
    "other bounds, value": (1e-9, "|π − π0| ≤ ε·π0^(1 − q): E[ρ*Q] = value of the linear programme"),
    "other bounds, policy": (1e-9, "π0·ρ* = solution of the linear programme, summed over tied actions"),
    "other bounds, improvement": (1e-9, "η(π*) − η(π0) = ε·E[Σ w|Q − μ|], w = π0^(1 − q), μ the median under w"),
    "other bounds, between 0 and 1": (1e-12, "π0·ρ* = the furthest probability in the direction of A, in [0, 1]"),
    "DPPO, gradient": (1e-12, "DPPO's masked gradient = BPO's with q = 1, overshoot_slope 0, ρ* by sign A"),
    "lower bound, holds": (1e-9, "η(π) below the bound with exact δ; random π inside and outside the bounds"),
    "lower bound, tight at π*": (1e-9, "|slack| at π = π*"),
    "lower bound, its slack": (1e-9, "slack = 2·E[((ρ − ρ*)A)⁺]; same π"),
    "lower bound, weighted by |Ã|": (1e-9, "|slack| with |Ã| instead of |A| in the loss; π inside the bounds"),
    "lower bound, worst case of δ": (1e-9, "excess of |δ| over 2γ(1 + h)/(1 − γ)²·max|A|·max TV(π, π*)"),
    "PPO, gradient": (1e-12, "PPO = BPO with ρ* = 1 + ε·sign A (also group mean), except past ρ*"),
    "PPO, past the target": (1e-12, "PPO's gradient is 0, BPO's is |A|·ρ·sign(ρ − ρ*)"),
    "PPO, overshoot_slope 0": (1e-12, "PPO's gradient = BPO's at any ρ"),
    "PPO, overshoot_slope 0.3": (1e-12, "the same, but 0.3·|A|·ρ·sign(ρ − ρ*) past ρ*"),
    "cross-entropy method": (1e-12, "c_l = 0, c_h = 1/q: ρ* = 1/q on the top q by sorting"),
    "median loss, quantile": (0.0, "minimiser at τ = 0 = ε_high/(ε_low + ε_high) quantile"),
    "median loss, τ → 0": (1e-7, "the same for the minimiser at τ = 1e-9"),
    "median loss, τ > 0": (1e-9, "E[σ((Q − μ)/τ)] = (1 − c_l)/(c_h − c_l) at the minimiser μ"),
}


@dataclass(frozen=True)
class CheckResult:
    """Result of one check.

    Args:
        check: Key of `CHECKS`.
        covers: Meaning of the check.
        cases: Number of errors: one per process, state or ratio, depending on the check.
        worst: Largest error, or None if it is not finite.
        tolerance: Largest error allowed.
        passed: Whether the check passed.
    """

    check: str
    covers: str
    cases: int
    worst: float | None
    tolerance: float
    passed: bool


@dataclass(frozen=True)
class TheoryResults:
    """Results of all checks.

    Args:
        mdps: Number of decision processes.
        seed: Seed of the random problems.
        seconds: Wall time.
        results: Results in the order of `CHECKS`.
        slack: 0, 5, 50, 95 and 100 % quantiles of the slack of the lower bound.
    """

    mdps: int
    seed: int
    seconds: float
    results: list[CheckResult]
    slack: dict[str, list[float]]


def run(mdps: int, seed: int) -> TheoryResults:
    """Run every check on random decision processes.

    Args:
        mdps: Number of decision processes; at least `KINDS`, so that each kind occurs.
        seed: Seed of the random problems, at least 0.

    Raises:
        ValueError: There are too few processes, or the seed is negative.
    """
    if mdps < KINDS:
        raise ValueError(f"--mdps {mdps} is too few to include all {KINDS} kinds of problem. Write {KINDS} or more.")
    if seed < 0:
        raise ValueError(f"--seed must be at least 0, got {seed}.")
    began = time.perf_counter()
    errors: dict[str, list[np.ndarray]] = defaultdict(list)
    slacks: dict[str, list[float]] = defaultdict(list)
    batches = max(KINDS, -(-mdps // BATCH))
    for batch in range(batches):
        rng = np.random.default_rng([seed, batch])
        problem = random_problem(rng, mdps // batches + (batch < mdps % batches), kind=batch % KINDS)
        for check in (optimum, improvement, other_bounds, ppo, cross_entropy_method, baselines):
            for name, found in check(problem, rng):
                errors[name].append(found.reshape(-1))
        for name, found in bounds_on_return(problem, rng, slacks):
            errors[name].append(found)
    results = [_result(name, np.concatenate(errors[name])) for name in CHECKS]
    quantile = {name: np.quantile(values, [0, 0.05, 0.5, 0.95, 1]).tolist() for name, values in slacks.items()}
    return TheoryResults(mdps, seed, time.perf_counter() - began, results, quantile)


def _result(name: str, errors: np.ndarray) -> CheckResult:
    tolerance, covers = CHECKS[name]
    worst = float(errors.max()) if np.isfinite(errors).all() else None
    return CheckResult(name, covers, errors.size, worst, tolerance, worst is not None and worst <= tolerance)
