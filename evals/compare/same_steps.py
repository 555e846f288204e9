"""Find the points of a comparison that take identical training steps, so that one run per seed is enough."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from .point import GBPO_FIELDS, Point

# Rewards that are 0 or 1. With such a reward, the exact target and GRPO move every completion in the same direction.
_BINARY_REWARDS = {"math", "exact_match", "majority_vote", "boxed"}

_BOUNDS = {"epsilon", "epsilon_high"}


def share_runs(found: Sequence[Point]) -> list[Point]:
    """Set `same_as` of each point that takes the same training steps as an earlier point."""
    first: dict[Any, Point] = {}
    for point in found:
        first.setdefault(_steps(point), point)
    runs = [first[_steps(point)] for point in found]
    return [
        point if run is point else dataclasses.replace(point, same_as=run)
        for point, run in zip(found, runs, strict=True)
    ]


def shared_run_notes(found: Sequence[Point]) -> list[str]:
    """One line per group of points that take the same steps and therefore share their runs.

    Raises:
        ValueError: Two algorithms take the same steps at every grid point, so comparing them shows nothing.
    """
    groups: dict[int, list[Point]] = {}
    runs_of: dict[str, list[int]] = {}
    for point in found:
        run = id(point.same_as or point)
        groups.setdefault(run, []).append(point)
        runs_of.setdefault(point.algorithm.name, []).append(run)
    for (name, runs), (another, other_runs) in itertools.combinations(runs_of.items(), 2):
        if runs == other_runs:
            raise ValueError(
                f"{name} and {another} make identical updates{' at every grid point' * (len(runs) > 1)}, so the "
                "comparison cannot show a difference. With one optimiser step per generation, epsilon and "
                "overshoot_slope have no effect. Set num_iterations above 1, or remove one of the two."
            )
    names = [[point.name for point in group] for group in groups.values() if len(group) > 1]
    return [f"These take identical training steps and share one run per seed: {'; '.join(group)}." for group in names]


def _steps(point: Point) -> tuple[Any, ...]:
    """Everything that determines the optimiser steps. Points with equal values take the same steps."""
    args = point.recipe.training
    run = dataclasses.replace(point.recipe.run, algorithm="grpo")  # `loss` describes the algorithm
    everything = {name: str(value) for name, value in args.to_dict().items()}
    if point.algorithm.base == "gbpo" and args.target_baseline == "mean":
        is_clipped = args.target_temperature == args.overshoot_slope == args.bound_exponent == 0
    else:
        is_clipped = point.algorithm.base == "grpo"
    loss = ("clipped",) if is_clipped else ("bounded", *(everything[name] for name in sorted(GBPO_FIELDS)))
    ignored = {*GBPO_FIELDS, "exact_speedups"}  # the speedups do not change the gradient; `loss` covers GBPO's fields
    if args.steps_per_generation * args.num_iterations <= args.gradient_accumulation_steps:  # every ratio is 1
        loss = _direction(point)
        ignored |= _BOUNDS
    kept = tuple((name, value) for name, value in sorted(everything.items()) if name not in ignored)
    return loss, kept, repr(run), repr(point.recipe.model)


def _direction(point: Point) -> tuple[str, ...]:
    """Everything that determines the direction of the gradient when every ratio is 1."""
    rewards, args = point.recipe.run.reward_funcs, point.recipe.training
    if point.algorithm.base == "grpo" or args.target_baseline == "mean":
        return ("advantage",)
    if args.target_baseline == "exact" and rewards and len(rewards) == 1 and rewards[0] in _BINARY_REWARDS:
        return ("advantage",)
    high = args.epsilon if args.epsilon_high is None else args.epsilon_high
    return (args.target_baseline, *([] if high == args.epsilon else [str(args.epsilon), str(high)]))
