"""Checkpoints of one seed: the saved model and the evaluations so far."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

_PROGRESS = "progress.json"
_NAME = re.compile(r"checkpoint-\d+")


@dataclass(frozen=True)
class Evaluation:
    """The result of one evaluation.

    Args:
        steps: Environment steps trained before this evaluation.
        seconds: Training time before this evaluation, in seconds, without evaluations and checkpoints.
        eval_returns: Undiscounted return of each episode, with the likeliest actions; for Atari, with sampled ones.
        train_return_mean: Mean return of the last 100 training episodes; None if no episode has ended yet.
        sampled_returns: Undiscounted return of each episode with sampled actions; None in files of earlier versions.
    """

    steps: int
    seconds: float
    eval_returns: list[float]
    train_return_mean: float | None
    sampled_returns: list[float] | None = None

    @property
    def mean(self) -> float:
        return float(np.mean(self.eval_returns))

    @property
    def std(self) -> float:
        return float(np.std(self.eval_returns))


@dataclass
class Progress:
    """All evaluations of a seed, oldest first. A checkpoint is written after each evaluation."""

    curve: list[Evaluation] = field(default_factory=list)

    @property
    def steps(self) -> int:
        return self.curve[-1].steps if self.curve else 0

    @property
    def seconds(self) -> float:
        return self.curve[-1].seconds if self.curve else 0.0


def last_checkpoint(seed_folder: Path) -> Path | None:
    """The checkpoint folder with the most steps, or None.

    An incomplete checkpoint has another name, so it is never returned, and neither is a copy under another name.
    """
    found = [path for path in seed_folder.glob("checkpoint-*") if _NAME.fullmatch(path.name)]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def read_progress(checkpoint: Path | None) -> Progress:
    """The evaluations saved in a checkpoint folder; no evaluations if there is no checkpoint.

    Raises:
        ValueError: The evaluations cannot be read.
    """
    if checkpoint is None:
        return Progress()
    try:
        return Progress([Evaluation(**values) for values in json.loads((checkpoint / _PROGRESS).read_text())])
    except (OSError, ValueError, TypeError) as error:
        raise damaged(checkpoint, error) from None


def damaged(checkpoint: Path, error: Exception) -> ValueError:
    """The error for a checkpoint that cannot be read."""
    return ValueError(
        f"The checkpoint {str(checkpoint)!r} is damaged or of another version ({type(error).__name__}: {error}), so "
        "the seed cannot be continued. Restore it from a copy, or delete it to train the seed from the beginning."
    )


def write_checkpoint(seed_folder: Path, progress: Progress, save_model: Callable[[Path], None]) -> Path:
    """Write `checkpoint-STEPS` and delete the previous checkpoint.

    Args:
        seed_folder: Folder of the seed.
        progress: All evaluations, the last one of the model to save.
        save_model: Writes the model into the folder that it is given.

    Returns:
        The new checkpoint folder.

    Raises:
        OSError: The checkpoint could not be written. The previous checkpoint is kept.
    """
    previous = last_checkpoint(seed_folder)
    incomplete = seed_folder / "part"
    shutil.rmtree(incomplete, ignore_errors=True)
    incomplete.mkdir()
    save_model(incomplete)
    (incomplete / _PROGRESS).write_text(json.dumps([dataclasses.asdict(evaluation) for evaluation in progress.curve]))
    complete = incomplete.rename(seed_folder / f"checkpoint-{progress.steps}")
    if previous is not None:
        shutil.rmtree(previous)
    return complete
