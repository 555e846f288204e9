"""The mathematics of `gbpo.core` in control: `BPO` for Stable-Baselines3, `gbpo.control.rsl_rl` for rsl_rl."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bpo import BPO as BPO

__all__ = ["BPO"]


def __getattr__(name: str) -> object:
    if name == "BPO":  # loaded when asked for, so that `gbpo.control.rsl_rl` works without Stable-Baselines3
        from .bpo import BPO

        return BPO
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
