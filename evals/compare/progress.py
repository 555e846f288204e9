"""How far the running cells of a comparison are, from the metrics that each run has logged."""

from __future__ import annotations

from gbpo.run.output import folder
from gbpo.trainer.config import BaseConfig

from .cell_folder import CellFolder

TRAINING_PART = 0.9  # the rest of a cell is the test


def progress(cell: CellFolder, training: BaseConfig) -> tuple[float, str]:
    """The share of a running cell that is done, and what it does: it starts, trains at a step, or is tested.

    Args:
        cell: Folder of the cell.
        training: Training options of its run.
    """
    if cell.record["status"] == "done":
        return TRAINING_PART, "testing"
    rows = folder.read_metrics(cell.run)
    if not rows:
        return 0.0, "starting"
    step = rows[-1]["step"]
    if training.max_steps > 0:
        return TRAINING_PART * min(step / training.max_steps, 1.0), f"step {step} of {training.max_steps}"
    return TRAINING_PART * min(rows[-1].get("epoch", 0.0) / training.num_train_epochs, 1.0), f"step {step}"
