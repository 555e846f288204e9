"""Helpers of the trainer, the runs and control that belong to none of them."""
