"""`BaseTrainer`: TRL's GRPOTrainer, its loss untouched, with what the runs of both algorithms rely on."""

from .engine import SyncedGRPOTrainer
from .ratios import RatioGRPOTrainer
from .resume import ResumableGRPOTrainer
from .trimming import TrimmedGRPOTrainer
from .voting import VotingGRPOTrainer


class BaseTrainer(VotingGRPOTrainer, SyncedGRPOTrainer, RatioGRPOTrainer, TrimmedGRPOTrainer, ResumableGRPOTrainer):
    """What `GBPOTrainer` and the GRPO baseline share: votes, a proven engine, finite steps, no padding, resume."""
