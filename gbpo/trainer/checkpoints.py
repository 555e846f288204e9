"""Checkpoints that are whole, and that hold all that the next optimiser step depends on.

A checkpoint of transformers holds weights, optimiser, schedule, step and random states. `save_rollout_state` adds, in a
file for each rank, what GRPO keeps beside them: the place within the generation and its completions, the loss and the
metrics that the next log averages, and the completions that it shows.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from transformers import TrainerState
from trl.trainer.grpo_trainer import strip_images_from_messages

from .passes.batch import Pass, Row

_STATE, _TRAINER_STATE = "rollout_state_{rank}.pt", "trainer_state.json"
_UNFINISHED = "_saving"  # uploads to the Hub leave out names that begin with an underscore


@contextmanager
def written_whole(final: Path, name: str, state: TrainerState, accelerator: Accelerator, save: bool) -> Iterator[Path]:
    """Give a folder to write a checkpoint into, and move it to its place when it is whole on all ranks.

    A run that is killed or finds the disk full while it saves leaves the last good checkpoint.

    Args:
        final: Folder of the checkpoints.
        name: Name of this checkpoint.
        state: Corrected where it names the best checkpoint.
        accelerator: The trainer's.
        save: Whether this process writes `trainer_state.json`.
    """
    unfinished = final / _UNFINISHED
    first_of_node = accelerator.is_local_main_process  # nodes may each have their own disk
    if first_of_node:  # left by a run that was killed
        shutil.rmtree(unfinished, ignore_errors=True)
    accelerator.wait_for_everyone()
    try:
        yield unfinished
        if state.best_model_checkpoint == str(unfinished / name):
            state.best_model_checkpoint = str(final / name)
            if save:
                state.save_to_json(str(unfinished / name / _TRAINER_STATE))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            _move(unfinished / name, final / name)
        accelerator.wait_for_everyone()
        if first_of_node:
            _move(unfinished / name, final / name)
    finally:
        if first_of_node:
            shutil.rmtree(unfinished, ignore_errors=True)
    accelerator.wait_for_everyone()


def _move(source: Path, target: Path) -> None:
    """Rename a folder, over another of that name; nothing if it has been renamed already."""
    if source.is_dir():
        shutil.rmtree(target, ignore_errors=True)  # of a run that was resumed from an earlier checkpoint
        source.rename(target)


def save_rollout_state(folder: Path, rank: int, state: Mapping[str, Any]) -> None:
    """Write the rollout state of a rank into a checkpoint; tensors, passes and plain data only."""
    torch.save(dict(state), folder / _STATE.format(rank=rank))


def load_rollout_state(folder: Path, rank: int, device: torch.device) -> dict[str, Any] | None:
    """The rollout state of a rank; None for a checkpoint without one."""
    path = folder / _STATE.format(rank=rank)
    if not path.is_file():
        return None
    with torch.serialization.safe_globals([Pass, Row]):
        return send_to_device(torch.load(path, map_location="cpu", weights_only=True), device)


def plain_logs(logs: Mapping[str, Any]) -> dict[str, Any]:
    """TRL's log of completions as plain data, without images."""
    columns = {name: {key: _plain(v) for key, v in logs[name].items()} for name in ("rewards", "extra")}
    texts = {name: [strip_images_from_messages(x) for x in logs[name]] for name in ("prompt", "completion")}
    return texts | {"advantages": _plain(logs["advantages"])} | columns


def _plain(value: Any) -> Any:
    """Values of a log as Python's own types; a reward may have logged NumPy's or its own."""
    if isinstance(value, np.generic | np.ndarray | torch.Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(some) for key, some in value.items()}
    if isinstance(value, str | int | float | bool | None):
        return value
    try:
        return [_plain(some) for some in value]
    except TypeError:
        return str(value)
