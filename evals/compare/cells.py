"""The cells of a comparison: each algorithm at each point of the grid with each seed, and whether they can differ."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gbpo.run.recipe import parsing as recipes
from gbpo.run.recipe.arguments import ALGORITHMS
from gbpo.run.recipe.parsing import Recipe
from gbpo.trainer.config import BaseConfig, GBPOConfig

from ..report.results import label

# Rewards that pay 0 or 1: in a group of them the exact target pulls as GRPO's advantage does
_TWO_VALUED = {"math", "exact_match", "majority_vote", "boxed"}

# Fields of the trainer that algorithms held against each other must share, beside all of the data and of the model
_ALIKE = (
    "num_generations",
    "num_iterations",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "steps_per_generation",
    "max_steps",
    "num_train_epochs",
    "resample_zero_signal_groups",
    "max_completion_length",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "reward_weights",
)

_OWN = {f.name for f in fields(GBPOConfig)} - {f.name for f in fields(BaseConfig)}
_BOUNDS = {"epsilon", "epsilon_high"}


@dataclass(frozen=True)
class Algorithm:
    """An entry of `--algorithms`.

    Args:
        name: As it was written, for example `"gbpo:target_baseline=exact"`.
        base: `"gbpo"` or `"grpo"`.
        fields: The fields after the colon, with their values as text.
    """

    name: str
    base: str
    fields: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> Algorithm:
        """Read `BASE[:field=value,…]`.

        Raises:
            ValueError: The base is no algorithm, or a field has no value or no effect.
        """
        base, _, rest = text.partition(":")
        option = f"--algorithms {text!r}"
        if base not in ALGORITHMS:
            raise ValueError(
                f"{option}: {base!r} is unknown. Write one of {', '.join(ALGORITHMS)}, with fields after a "
                "colon, for example gbpo:target_baseline=exact."
            )
        own = dict(_assignment(part, option) for part in rest.split(",") if part)
        if unread := _OWN & own.keys() if base == "grpo" else set():
            raise ValueError(f"{option}: grpo does not read {', '.join(sorted(unread))}. Remove it, or write gbpo:….")
        return cls(text, base, own)


@dataclass(frozen=True)
class Point:
    """One algorithm at one point of the grid: what its cells of all seeds share.

    Args:
        algorithm: Which algorithm.
        setting: Field to value, the point of the grid.
        flags: What the command line of a cell says of both.
        recipe: The recipe, parsed with these flags.
        same_as: The first point that takes the same steps, whose runs stand for this one; None for that point itself.
    """

    algorithm: Algorithm
    setting: dict[str, Any]
    flags: list[str]
    recipe: Recipe
    same_as: Point | None = None

    @property
    def name(self) -> str:
        """`"gbpo, epsilon=0.2"`."""
        return f"{self.algorithm.name}, {describe(self.setting)}"

    def folder(self, seed: int) -> Path:
        """Where a cell lies, below the folder of the comparison."""
        if self.same_as:
            return self.same_as.folder(seed)
        where = describe(self.setting).replace(" ", "").replace("/", "_")
        return Path("cells") / self.algorithm.name.replace(":", "-").replace("/", "_") / where / f"seed-{seed}"


def describe(setting: Mapping[str, Any]) -> str:
    """`"epsilon=0.2, num_iterations=4"`; without a grid, `"all"`."""
    return label(setting) or "all"


def read_grid(texts: Sequence[str]) -> dict[str, list[Any]]:
    """`["epsilon=0.2,0.3"]` as `{"epsilon": [0.2, 0.3]}`.

    Raises:
        ValueError: A field has no value, or a field or a value stands there twice.
    """
    grid: dict[str, list[Any]] = {}
    for text in texts:
        name, listed = _assignment(text, f"--grid {text!r}")
        values = [_number(value) for value in listed.split(",")]
        if name in grid or len(set(values)) < len(values):
            raise ValueError(f"--grid {text!r} gives a field or a value twice. Write each once.")
        grid[name] = values
    return grid


def points(
    recipe: Path, algorithms: Sequence[str], grid: Mapping[str, Sequence[Any]], flags: Sequence[str]
) -> list[Point]:
    """Every algorithm at every point of the grid, parsed; `flags` hold for all of them.

    Raises:
        ValueError: The recipe is refused with these fields, or the algorithms cannot be compared.
    """
    if len(set(algorithms)) < len(algorithms):
        raise ValueError(f"--algorithms {' '.join(algorithms)} names one twice. Write each once.")
    parsed = [Algorithm.parse(text) for text in algorithms]
    given = {flag.removeprefix("--").partition("=")[0] for flag in flags if flag.startswith("--")}
    for name in grid:
        holders = ["the command line"] * (name in given) + [a.name for a in parsed if name in a.fields]
        if holders:
            raise ValueError(f"--grid {name}=… and {holders[0]} both set {name}, and only one can hold. Remove one.")
    found = []
    for values in itertools.product(*grid.values()):
        setting = dict(zip(grid, values, strict=True))
        here = [_point(recipe, algorithm, setting, flags) for algorithm in parsed]
        for other in here[1:]:
            _check_alike(here[0], other)
        found += here
    return _run_once(found)


def notes(found: Sequence[Point]) -> list[str]:
    """A line for each group of points that take the same steps, so that one run stands for all of them.

    Raises:
        ValueError: Two algorithms take the same steps at every point, so that nothing could be learnt of them.
    """
    alike: dict[int, list[Point]] = {}
    of_algorithm: dict[str, list[int]] = {}
    for point in found:
        run_by = id(point.same_as or point)
        alike.setdefault(run_by, []).append(point)
        of_algorithm.setdefault(point.algorithm.name, []).append(run_by)
    for (name, runs), (another, theirs) in itertools.combinations(of_algorithm.items(), 2):
        if runs == theirs:
            raise ValueError(
                f"{name} and {another} take the same steps{' at every point of the grid' * (len(runs) > 1)}: the "
                "comparison cannot show a difference. With one optimiser step per generation neither epsilon nor the "
                "slope acts; set num_iterations above 1, or leave one of them out."
            )
    groups = [[point.name for point in group] for group in alike.values() if len(group) > 1]
    return [f"The same steps, so that one run of each seed stands for all: {'; '.join(group)}." for group in groups]


def _run_once(found: Sequence[Point]) -> list[Point]:
    """The points, each with the first that takes the same steps."""
    first: dict[Any, Point] = {}
    for point in found:
        first.setdefault(_steps(point), point)
    runs = [first[_steps(point)] for point in found]
    return [
        point if run is point else dataclasses.replace(point, same_as=run)
        for point, run in zip(found, runs, strict=True)
    ]


def _point(recipe: Path, algorithm: Algorithm, setting: dict[str, Any], flags: Sequence[str]) -> Point:
    values = {**algorithm.fields, **setting}
    if algorithm.base == "gbpo" and not any(flag.startswith("--skip_zero_signal") for flag in flags):
        values = {"skip_zero_signal": "false", **values}  # GRPO's entropy and ratios are those of all rows too
    own = ["--algorithm", algorithm.base, *(f"--{name}={value}" for name, value in values.items())]
    try:
        return Point(algorithm, setting, own, recipes.parse([str(recipe), *flags, *own]))
    except ValueError as error:
        raise ValueError(f"{algorithm.name}, {describe(setting)}: {error}") from None


def _check_alike(one: Point, other: Point) -> None:
    for name, value, theirs in _shared(one, other):
        if value != theirs:
            raise ValueError(
                f"{one.algorithm.name} has {name}={value} and {other.algorithm.name} {name}={theirs}: another batch, "
                f"other prompts or steps, so that their difference is not that of the algorithms. Write --{name} or "
                f"--grid {name}=…, which hold for all of them."
            )


def _shared(one: Point, other: Point):
    for part in ("run", "model"):
        theirs = dataclasses.asdict(getattr(other.recipe, part))
        for name, value in dataclasses.asdict(getattr(one.recipe, part)).items():
            if name != "algorithm":
                yield name, value, theirs[name]
    for name in _ALIKE:
        yield name, getattr(one.recipe.training, name), getattr(other.recipe.training, name)


def _steps(point: Point) -> tuple[Any, ...]:
    """What decides the optimiser steps of a point: two points with the same take the same steps."""
    args = point.recipe.training
    run = dataclasses.replace(point.recipe.run, algorithm="grpo")  # which loss it is, is told below
    everything = {name: str(value) for name, value in args.to_dict().items()}
    if point.algorithm.base == "gbpo" and args.target_baseline == "mean":
        is_clipped = args.target_temperature == 0 and args.overshoot_slope == 0
    else:
        is_clipped = point.algorithm.base == "grpo"
    loss = ("clipped",) if is_clipped else ("bounded", *(everything[name] for name in sorted(_OWN)))
    ignored = set(_OWN)
    if args.steps_per_generation * args.num_iterations <= args.gradient_accumulation_steps:  # every ratio is 1
        loss = _pull(point)
        ignored |= _BOUNDS
    kept = tuple((name, value) for name, value in sorted(everything.items()) if name not in ignored)
    return loss, kept, repr(run), repr(point.recipe.model)


def _pull(point: Point) -> tuple[str, ...]:
    """What the direction of a completion's pull follows at ρ = 1."""
    rewards, args = point.recipe.run.reward_funcs, point.recipe.training
    if point.algorithm.base == "grpo" or args.target_baseline == "mean":
        return ("advantage",)
    if args.target_baseline == "exact" and rewards and len(rewards) == 1 and rewards[0] in _TWO_VALUED:
        return ("advantage",)
    high = args.epsilon if args.epsilon_high is None else args.epsilon_high
    return (args.target_baseline, *([] if high == args.epsilon else [str(args.epsilon), str(high)]))


def _assignment(text: str, option: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name or not value:
        raise ValueError(f"{option}: {text!r} gives no value. Write field=value.")
    return name.strip().replace("-", "_"), value.strip()


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
