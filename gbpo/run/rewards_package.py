"""Where the package `rewards` is: beside gbpo in a checkout, inside it in an installed wheel."""

from importlib import import_module
from pathlib import Path
from types import ModuleType


def rewards_module(name: str = "") -> ModuleType:
    """The package `rewards` or, with a name, one of its modules.

    >>> rewards_module("check").__name__.endswith("rewards.check")
    True
    """
    inside = (Path(__file__).parents[1] / "rewards").is_dir()
    return import_module(".".join(filter(None, ["gbpo.rewards" if inside else "rewards", name])))
