"""`BaseTrainer`: TRL's GRPOTrainer, its loss untouched, with what the runs of both algorithms rely on."""

from accelerate.data_loader import DataLoaderShard

from .engine import SyncedGRPOTrainer
from .phases import PhasedGRPOTrainer
from .ratios import RatioGRPOTrainer
from .resampling import ResamplingGRPOTrainer
from .resume import ResumableGRPOTrainer
from .trimming import TrimmedGRPOTrainer
from .voting import VotingGRPOTrainer


class BaseTrainer(
    ResamplingGRPOTrainer,
    PhasedGRPOTrainer,
    VotingGRPOTrainer,
    SyncedGRPOTrainer,
    RatioGRPOTrainer,
    TrimmedGRPOTrainer,
    ResumableGRPOTrainer,
):
    """What `GBPOTrainer` and the GRPO baseline share: votes, resampling, a proven engine, no padding, resume."""

    def get_train_dataloader(self):
        loader = super().get_train_dataloader()
        if isinstance(loader, DataLoaderShard):
            loader.device = None  # rows of text, which accelerate would walk through at every micro-batch
        return loader
