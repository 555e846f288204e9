"""The modules of the package `rewards`, which the runner uses without importing them by name."""

from types import ModuleType

from ..shared.packages import companion


def rewards_module(name: str = "") -> ModuleType:
    """The package `rewards` or, with a name, one of its modules.

    >>> rewards_module("check").__name__.endswith("rewards.check")
    True
    """
    return companion(f"rewards.{name}".removesuffix("."))
