"""`ResumableGRPOTrainer`: TRL's GRPOTrainer whose checkpoints hold all that the next optimiser step depends on."""

import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints
from trl import GRPOTrainer
from trl.trainer.grpo_trainer import strip_images_from_messages

_STATE, _TRAINER_STATE = "rollout_state_{rank}.pt", "trainer_state.json"
_UNFINISHED = "_saving"  # the Hub's upload leaves out what begins with an underscore


class ResumableGRPOTrainer(GRPOTrainer):
    """TRL's GRPOTrainer that goes on from a checkpoint as if it had never stopped, whichever optimiser step it is of.

    A checkpoint of transformers holds weights, optimiser, schedule, step and random states. This adds, in a file for
    each rank, what GRPO keeps beside them: the place within the generation and its completions, the loss and metrics
    that the next log averages, and the completions that it shows. The order of prompts, drawn anew in each epoch, is
    wound forward to the epoch of the checkpoint.

    A checkpoint is written under another name and takes its own when it is whole on all ranks, before older ones are
    removed: a run that is killed, or finds the disk full, while it saves, leaves the last good checkpoint.
    """

    def _save_checkpoint(self, model, trial):
        final = Path(super()._get_output_dir(trial))
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        first_of_node = self.args.local_process_index == 0  # nodes may each have their own disk
        self._unfinished = final / _UNFINISHED
        if first_of_node:  # what an earlier run was writing when it was killed
            shutil.rmtree(self._unfinished, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        try:
            super()._save_checkpoint(model, trial)
            self._finish_current_push()  # an upload reads the files under this name
            self._correct_best_checkpoint(self._unfinished / name, final / name)
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                _replace(self._unfinished / name, final / name)
            self.accelerator.wait_for_everyone()
            if first_of_node:
                _replace(self._unfinished / name, final / name)
        finally:
            if first_of_node:
                shutil.rmtree(self._unfinished, ignore_errors=True)
            self._unfinished = None
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            rotate_checkpoints(
                output_dir=str(final),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )

    _unfinished: Path | None = None

    def _get_output_dir(self, trial):
        return super()._get_output_dir(trial) if self._unfinished is None else str(self._unfinished)

    def _correct_best_checkpoint(self, written: Path, final: Path) -> None:
        if self.state.best_model_checkpoint == str(written):
            self.state.best_model_checkpoint = str(final)
            if self.args.should_save:
                self.state.save_to_json(str(written / _TRAINER_STATE))

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        torch.save(self._rollout_state(), Path(output_dir) / _STATE.format(rank=self.args.process_index))

    def _load_rng_state(self, checkpoint):
        super()._load_rng_state(checkpoint)  # the last that transformers restores, before the first step
        path = Path(checkpoint) / _STATE.format(rank=self.args.process_index)
        if path.is_file():
            state = torch.load(path, map_location="cpu", weights_only=True)
            self._restore_rollout_state(send_to_device(state, self.args.device))

    def _rollout_state(self) -> dict[str, Any]:
        begins_anew = self._step % (self.args.steps_per_generation * self.num_iterations) == 0
        texts = {name: [strip_images_from_messages(x) for x in self._logs[name]] for name in ("prompt", "completion")}
        return {
            "step": self._step,
            "completions": None if begins_anew else self._buffered_inputs,
            "metrics": dict(self._metrics["train"]),
            "logs": texts
            | {"advantages": list(self._logs["advantages"])}
            | {name: {column: list(v) for column, v in self._logs[name].items()} for name in ("rewards", "extra")},
            "loss_since_log": self._tr_loss,
            "total_loss": self._total_loss_scalar,
            "last_logged_step": self._globalstep_last_logged,
        }

    def _restore_rollout_state(self, state: dict[str, Any]) -> None:
        self._step, self._buffered_inputs = state["step"], state["completions"]
        self._metrics["train"] = defaultdict(list, state["metrics"])
        for name, values in state["logs"].items():
            if isinstance(values, dict):
                for column, entries in values.items():
                    self._logs[name][column].extend(entries)
            else:
                self._logs[name].extend(values)
        self._tr_loss, self._total_loss_scalar = state["loss_since_log"], state["total_loss"]
        self._globalstep_last_logged = state["last_logged_step"]

    def _get_train_sampler(self, dataset=None):
        self._sampler = super()._get_train_sampler(dataset)
        return self._sampler

    def _init_training_state(self, *args, **kwargs):
        epochs, steps = super()._init_training_state(*args, **kwargs)
        for _ in range(epochs):  # each iteration of the sampler draws the order of one epoch
            next(iter(self._sampler), None)
        return epochs, steps


def _replace(source: Path, target: Path) -> None:
    """Rename a folder, over another of that name; nothing where it has been renamed already."""
    if source.is_dir():
        shutil.rmtree(target, ignore_errors=True)  # of a run that was resumed from an earlier checkpoint
        source.rename(target)
