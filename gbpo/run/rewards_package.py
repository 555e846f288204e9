"""The modules of the package `rewards`, which the runner uses without importing them by name."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

from ..shared.packages import companion


def rewards_module(name: str = "") -> ModuleType:
    """The package `rewards` or, with a name, one of its modules.

    >>> rewards_module("check").__name__.endswith("rewards.check")
    True
    """
    return companion(f"rewards.{name}".removesuffix("."))


def get_reward(name: str, **options: Any) -> Callable[..., Any]:
    """A reward by the name or the dotted path that a recipe gives, with its options.

    Raises:
        ValueError: The reward or an option is unknown.

    >>> get_reward("exact_match")(["57", " 58 "], solution=["57", "57"])
    [1.0, 0.0]
    """
    return rewards_module().get_reward(name, **options)
