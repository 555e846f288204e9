"""GBPO: fine-tune language models by Bounded Ratio Reinforcement Learning (arXiv 2604.18578)."""

from importlib import import_module
from typing import TYPE_CHECKING

from .shared.version import __version__

if TYPE_CHECKING:
    from .run.models.catalogue import local_model as local_model
    from .run.rewards_package import get_reward as get_reward
    from .trainer.config import GBPOConfig as GBPOConfig
    from .trainer.gbpo import GBPOTrainer as GBPOTrainer

__all__ = ["GBPOConfig", "GBPOTrainer", "__version__", "get_reward", "local_model"]

# loaded when asked for, so that `gbpo.core` does not wait for TRL
_LAZY = {
    "GBPOConfig": ".trainer.config",
    "GBPOTrainer": ".trainer.gbpo",
    "get_reward": ".run.rewards_package",
    "local_model": ".run.models.catalogue",
}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
