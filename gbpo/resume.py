"""`ResumableGRPOTrainer`: TRL's GRPOTrainer whose checkpoints hold all that the next optimiser step depends on."""

from trl import GRPOTrainer


class ResumableGRPOTrainer(GRPOTrainer):
    """TRL's GRPOTrainer that goes on from a checkpoint as if it had never stopped."""
