"""`GBPOTrainer` and its configuration, on top of TRL's `GRPOTrainer`."""
