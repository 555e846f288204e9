"""The grid of a comparison: every algorithm at every grid point, and the check that the algorithms are comparable."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gbpo.run.recipe import parsing as recipes
from gbpo.run.recipe.parsing import Recipe
from gbpo.trainer.passes.speedups import SPEEDUPS, requested_speedups

from .point import Algorithm, Point, describe, read_assignment
from .same_steps import share_runs

# Fields that the comparison sets for each run, and the option that sets them
_SET_BY_COMPARISON = {"seed": "--seeds", "algorithm": "--algorithms", "output_dir": "--output"}

# Fields of the trainer that all algorithms must share, in addition to the data and the model
_SHARED_FIELDS = (
    "num_generations",
    "num_iterations",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "steps_per_generation",
    "max_steps",
    "num_train_epochs",
    "resample_zero_signal_groups",
    "difficulty",
    "max_completion_length",
    "chat_template_kwargs",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "reward_weights",
)


def read_grid(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Read the values of `--grid`, for example `["epsilon=0.2,0.3"]` → `{"epsilon": [0.2, 0.3]}`.

    Raises:
        ValueError: A field has no value, a field or value is given twice, or an item gives two fields.
    """
    grid: dict[str, list[Any]] = {}
    for text in texts:
        name, listed = read_assignment(text, f"--grid {text!r}")
        if second := re.search(r",\s*(\w+=.*)", listed):
            raise ValueError(
                f"--grid {text!r} gives two fields in one item, so {second[1]!r} would be a value of {name}. Separate "
                f"fields by a space: --grid {text[: -len(second[0])]} {second[1]}."
            )
        values = [_number(value) for value in listed.split(",")]
        if name in grid or len(set(values)) < len(values):
            raise ValueError(
                f"--grid {text!r} repeats a field or a value, so runs would be repeated. Write each only once."
            )
        grid[name] = values
    return grid


def grid_points(
    recipe: Path, algorithms: Sequence[str], grid: Mapping[str, Sequence[Any]], flags: Sequence[str]
) -> list[Point]:
    """Combine every algorithm with every grid point and parse the recipe for each.

    Args:
        recipe: Path of the recipe.
        algorithms: Entries of `--algorithms`.
        grid: Values of each field of the grid.
        flags: Flags for all algorithms and grid points.

    Raises:
        ValueError: The recipe cannot be parsed with these fields, the comparison sets one of them itself, or the
            algorithms are not comparable.
    """
    if len(set(algorithms)) < len(algorithms):
        raise ValueError(
            f"--algorithms {' '.join(algorithms)} names an algorithm twice, so runs would be repeated. Write each only "
            "once."
        )
    parsed = [Algorithm.parse(text) for text in algorithms]
    given = {flag.removeprefix("--").partition("=")[0].replace("-", "_") for flag in flags if flag.startswith("--")}
    for name, option in _SET_BY_COMPARISON.items():
        if name in given or name in grid or any(name in algorithm.fields for algorithm in parsed):
            raise ValueError(
                f"{name} would be overwritten, because the comparison sets it for each run. Remove it and write "
                f"{option}."
            )
    for name in grid:
        setters = ["the command line"] * (name in given) + [a.name for a in parsed if name in a.fields]
        if setters:
            raise ValueError(f"--grid {name}=… and {setters[0]} both set {name}, which is ambiguous. Remove one.")
    found = []
    for values in itertools.product(*grid.values()):
        setting = dict(zip(grid, values, strict=True))
        here = [_point(recipe, algorithm, setting, flags) for algorithm in parsed]
        for other in here[1:]:
            _check_comparable(here[0], other)
        found += here
    return share_runs(found)


def _point(recipe: Path, algorithm: Algorithm, setting: dict[str, Any], flags: Sequence[str]) -> Point:
    values = {**algorithm.fields, **setting}
    own = ["--algorithm", algorithm.base, *(f"--{name}={value}" for name, value in values.items())]
    chosen = "exact_speedups" in values or any(flag.startswith("--exact_speedups") for flag in flags)
    try:
        parsed = recipes.parse([str(recipe), *flags, *own])
        if algorithm.base == "gbpo" and not chosen:
            own += _run_every_row(parsed)
            parsed = recipes.parse([str(recipe), *flags, *own])
        return Point(algorithm, setting, own, parsed)
    except ValueError as error:
        raise ValueError(f"{algorithm.name}, {describe(setting)}: {error}") from None


def _run_every_row(recipe: Recipe) -> list[str]:
    """Flags that turn off skip_zero_signal. The logged entropy and ratios then cover all rows, as with GRPO."""
    requested = requested_speedups(recipe.training.exact_speedups)
    kept = [name for name in SPEEDUPS if name in requested and name != "skip_zero_signal"]
    return ["--exact_speedups", *(kept or ["none"])]


def _check_comparable(one: Point, other: Point) -> None:
    for name, value, other_value in _shared_values(one, other):
        if value != other_value:
            raise ValueError(
                f"{one.algorithm.name} has {name}={value} but {other.algorithm.name} has {name}={other_value}. Their "
                "batches, prompts or steps would differ, so a difference could not be attributed to the algorithms. "
                f"Write --{name} or --grid {name}=…, which apply to all algorithms."
            )


def _shared_values(one: Point, other: Point) -> Iterator[tuple[str, Any, Any]]:
    """Name and both values of each field that the algorithms must share."""
    for part in ("run", "model"):
        other_values = dataclasses.asdict(getattr(other.recipe, part))
        for name, value in dataclasses.asdict(getattr(one.recipe, part)).items():
            if name != "algorithm":
                yield name, value, other_values[name]
    for name in _SHARED_FIELDS:
        yield name, getattr(one.recipe.training, name), getattr(other.recipe.training, name)


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
