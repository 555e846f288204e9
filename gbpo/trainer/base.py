"""`BaseTrainer`: TRL's GRPOTrainer, its loss untouched, with what the runs of both algorithms rely on."""

from accelerate.data_loader import DataLoaderShard

from .checkpoints import ResumableGRPOTrainer
from .guards.phase_times import PhasedGRPOTrainer
from .guards.ratio_metrics import RatioGRPOTrainer
from .guards.vllm_weights import SyncedGRPOTrainer
from .passes.unpadded import TrimmedGRPOTrainer
from .sampling.extra_votes import VotingGRPOTrainer
from .sampling.resampling import ResamplingGRPOTrainer


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
