"""Writes checkpoints that are never half-written and that hold everything the next optimiser step depends on.

A checkpoint of transformers holds weights, optimiser, schedule, step and random states. `save_rollout_state` adds one
file per rank with the state of GRPO: the current generation with its completions and the position within it, the loss
and metrics that the next log will average, and the completions that the next log will show.
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
from safetensors import safe_open
from transformers import TrainerState
from trl.trainer.grpo_trainer import strip_images_from_messages

from .passes.batch import Pass, Row

_STATE, _TRAINER_STATE = "rollout_state_{rank}.pt", "trainer_state.json"
_UNFINISHED = "_saving"  # uploads to the Hub leave out names that begin with an underscore


@contextmanager
def written_whole(final: Path, name: str, state: TrainerState, accelerator: Accelerator, save: bool) -> Iterator[Path]:
    """Yield a temporary folder for a checkpoint, and move the checkpoint to `final` when all ranks have written it.

    If the run is killed or the disk fills up during the save, the previous checkpoint stays intact.

    Args:
        final: Folder of all checkpoints.
        name: Name of this checkpoint.
        state: State of the trainer. If it names this checkpoint as the best, the path is set to the final folder.
        accelerator: The accelerator of the trainer.
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
    """Rename a folder and replace any folder at `target`. Do nothing if another process has renamed it already."""
    if source.is_dir():
        shutil.rmtree(target, ignore_errors=True)  # exists if the run was resumed from an earlier checkpoint
        source.rename(target)


def save_rollout_state(folder: Path, rank: int, state: Mapping[str, Any]) -> None:
    """Write the rollout state of a rank into a checkpoint. It may hold only tensors, passes and plain Python data."""
    torch.save(dict(state), folder / _STATE.format(rank=rank))


def load_rollout_state(folder: Path, rank: int, device: torch.device) -> dict[str, Any] | None:
    """The rollout state of a rank, or None if the checkpoint has none."""
    path = folder / _STATE.format(rank=rank)
    if not path.is_file():
        return None
    with torch.serialization.safe_globals([Pass, Row]):
        return send_to_device(torch.load(path, map_location="cpu", weights_only=True), device)


def load_renamed_weights(model: Any, folder: Path) -> bool:
    """Load the weights of a checkpoint whose names differ from those of the model. Returns whether they differ.

    transformers saves vision-language models and mixtures of experts under the names of the Hub. It loads a checkpoint
    by the names of the model and ignores all others, so it would continue with the weights of the start.
    """
    names: set[str] = set()
    for path in folder.glob("model*.safetensors"):
        with safe_open(path, framework="pt") as file:
            names.update(file.keys())
    weights = model.state_dict()
    if names <= weights.keys():
        return False
    model.load_state_dict(type(model).from_pretrained(folder, dtype=model.dtype).state_dict())
    return True


def plain_logs(logs: Mapping[str, Any]) -> dict[str, Any]:
    """TRL's log of completions as plain data, without images."""
    columns = {name: {key: _plain(v) for key, v in logs[name].items()} for name in ("rewards", "extra")}
    texts = {name: [strip_images_from_messages(x) for x in logs[name]] for name in ("prompt", "completion")}
    return texts | {"advantages": _plain(logs["advantages"])} | columns


def _plain(value: Any) -> Any:
    """Convert a logged value to plain Python types. A reward may have logged NumPy values or objects of its own."""
    if type(value) in (str, float, int):  # almost all values, and much faster than the checks below
        return value
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
