"""An algorithm at a grid point: the unit that a comparison runs with several seeds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gbpo.run.recipe.arguments import ALGORITHMS
from gbpo.run.recipe.parsing import Recipe
from gbpo.trainer.config import BaseConfig, GBPOConfig

from ..shared.results import label

# Fields that only GBPO reads
GBPO_FIELDS = {f.name for f in fields(GBPOConfig)} - {f.name for f in fields(BaseConfig)}


@dataclass(frozen=True)
class Algorithm:
    """An entry of `--algorithms`.

    Args:
        name: The entry as written, for example `"gbpo:target_baseline=exact"`.
        base: `"gbpo"` or `"grpo"`.
        fields: Fields after the colon, with their values as text.
    """

    name: str
    base: str
    fields: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> Algorithm:
        """Read `BASE[:field=value,…]`.

        Raises:
            ValueError: The text names several algorithms, the base is unknown, a field has no value, or the algorithm
                does not read a field.
        """
        option = f"--algorithms {text!r}"
        several = re.split(rf",(?=(?:{'|'.join(ALGORITHMS)})(?:[:,]|$))", text)
        if len(several) > 1:
            raise ValueError(
                f"{option} is read as one algorithm, because commas separate its fields. Separate algorithms by "
                f"spaces: --algorithms {' '.join(several)}."
            )
        base, _, rest = text.partition(":")
        if base not in ALGORITHMS:
            raise ValueError(
                f"{option}: {base!r} is unknown. Write one of {', '.join(ALGORITHMS)}, optionally with fields after a "
                "colon, for example gbpo:target_baseline=exact."
            )
        own = dict(read_assignment(part, option) for part in rest.split(",") if part)
        if unread := GBPO_FIELDS & own.keys() if base == "grpo" else set():
            names = ", ".join(sorted(unread))
            raise ValueError(f"{option}: grpo does not read {names}, so it would have no effect. Remove it.")
        return cls(text, base, own)


@dataclass(frozen=True)
class Point:
    """One algorithm at one grid point. Its cells are the runs with the different seeds.

    Args:
        algorithm: The algorithm.
        setting: The grid point: value of each field.
        flags: Command-line flags that select the algorithm and the grid point.
        recipe: The recipe, parsed with these flags.
        same_as: First point with identical training steps. Its runs are also used for this point. None if there is no
            earlier one.
    """

    algorithm: Algorithm
    setting: dict[str, Any]
    flags: list[str]
    recipe: Recipe
    same_as: Point | None = None

    @property
    def name(self) -> str:
        """Name for messages, for example `"gbpo, epsilon=0.2"`."""
        return f"{self.algorithm.name}, {describe(self.setting)}"

    def folder(self, seed: int) -> Path:
        """Folder of the cell with this seed, relative to the folder of the comparison."""
        if self.same_as:
            return self.same_as.folder(seed)
        where = describe(self.setting).replace(" ", "").replace("/", "_")
        return Path("cells") / self.algorithm.name.replace(":", "-").replace("/", "_") / where / f"seed-{seed}"


def describe(setting: Mapping[str, Any]) -> str:
    """Name of a grid point, for example `"epsilon=0.2, num_iterations=4"`. Without a grid, `"all"`."""
    return label(setting) or "all"


def read_assignment(text: str, option: str) -> tuple[str, str]:
    """Split `field=value`.

    Args:
        text: The assignment.
        option: Command-line option that contains the assignment, for the error message.

    Raises:
        ValueError: The field or the value is missing.
    """
    name, _, value = text.partition("=")
    if not name or not value:
        raise ValueError(f"{option}: {text!r} does not set a field. Write field=value.")
    return name.strip().replace("-", "_"), value.strip()
