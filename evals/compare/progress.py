"""How far the running cells of a comparison are, from the metrics that each run has logged."""

from __future__ import annotations

from gbpo.run.output import folder
from gbpo.trainer.config import BaseConfig

from .cell_folder import CellFolder

TRAINING_PART = 0.9  # the rest of a cell is the test


def done_share(cell: CellFolder, training: BaseConfig) -> float:
    """Share of a running cell that is done, from 0 to 1. The training counts as `TRAINING_PART`.

    Args:
        cell: Folder of the cell.
        training: Training options of its run.
    """
    if cell.record["status"] == "done":
        return TRAINING_PART
    rows = folder.read_metrics(cell.run)
    if not rows:
        return 0.0
    if training.max_steps > 0:
        return TRAINING_PART * min(rows[-1]["step"] / training.max_steps, 1.0)
    return TRAINING_PART * min(rows[-1].get("epoch", 0.0) / training.num_train_epochs, 1.0)


def describe_progress(cell: CellFolder, training: BaseConfig) -> str:
    """What a running cell does: it starts, trains at a step, or is tested."""
    if cell.record["status"] == "done":
        return "testing"
    rows = folder.read_metrics(cell.run)
    if not rows:
        return "starting"
    steps = f" of {training.max_steps}" if training.max_steps > 0 else ""
    return f"step {rows[-1]['step']}{steps}"
