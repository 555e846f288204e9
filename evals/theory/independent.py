"""Solutions that do not use `gbpo.core`: SciPy's solvers and sorting."""

from __future__ import annotations

import numpy as np
from scipy import optimize, sparse, special


def linear_programme(q: np.ndarray, least: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Policy π that maximises E_{a~π}[Q] subject to `least ≤ π ≤ most`, with SciPy's HiGHS.

    All states are solved as blocks of a single linear programme.

    Args:
        q: Action values, (..., A).
        least: Lower bounds of π, (..., A).
        most: Upper bounds of π, (..., A).

    Returns:
        π, (..., A).
    """
    actions = q.shape[-1]
    blocks = sparse.kron(sparse.eye(q.size // actions), np.ones((1, actions)), format="csr")
    solution = optimize.linprog(
        -q.reshape(-1),
        A_eq=blocks,
        b_eq=np.ones(blocks.shape[0]),
        bounds=np.stack([least, most], axis=-1).reshape(-1, 2),
        method="highs-ds",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    return solution.x.reshape(q.shape)


def convex_solver(q: np.ndarray, old: np.ndarray, lift: float, temperature: float) -> np.ndarray:
    """x, (A,), that maximises E[x Q + T H(x)] subject to E[x] = lift, with SciPy's SLSQP."""
    solution = optimize.minimize(
        lambda x: -old @ (x * q + temperature * binary_entropy(x)),
        np.full_like(q, lift),
        jac=lambda x: -old * (q - temperature * special.logit(x)),
        bounds=[(1e-9, 1 - 1e-9)] * len(q),
        constraints={"type": "eq", "fun": lambda x: old @ x - lift, "jac": lambda x: old},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    return solution.x


def binary_entropy(x: np.ndarray) -> np.ndarray:
    """H(x) = −x ln x − (1 − x) ln(1 − x)."""
    return special.entr(x) + special.entr(1 - x)


def quantiles(q: np.ndarray, old: np.ndarray, lift: float) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest (1 − lift) quantile of Q under π0, (..., A) → (..., 1) each.

    The two differ if some actions together have exactly the probability 1 − lift, for example half of an even group.
    """
    order = q.argsort(-1)
    below = np.take_along_axis(old, order, axis=-1).cumsum(-1)
    ascending, level = np.take_along_axis(q, order, axis=-1), 1 - lift
    least = (below >= level - 1e-12).argmax(-1)[..., None]
    greatest = (below > level + 1e-12).argmax(-1)[..., None]
    return np.take_along_axis(ascending, least, axis=-1), np.take_along_axis(ascending, greatest, axis=-1)
