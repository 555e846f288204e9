"""BPO for control tasks: `gbpo.control.BPO` for Stable-Baselines3 and `gbpo.control.rsl_rl.BPO` for rsl_rl."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bpo import BPO as BPO

__all__ = ["BPO"]


def __getattr__(name: str) -> object:
    if name == "BPO":  # imported on first use, so that `gbpo.control.rsl_rl` works without Stable-Baselines3
        from .bpo import BPO

        return BPO
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
