"""What a run shows and records while it trains."""

from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import ProgressCallback, TrainerCallback

from .folder import append_metrics, rewind_metrics

# metric → how a person reads it
_SHOWN = {
    "reward": "reward {:.3f}",
    "loss": "loss {:+.4f}",
    "entropy": "entropy {:.3f}",
    "kl": "kl {:.4f}",
    "completions/mean_length": "length {:.0f}",
    "gbpo/outside_bounds": "outside {:.1%}",
    "clip_ratio/region_mean": "clipped {:.1%}",
    "grad_norm": "grad {:.2f}",
    "step_time": "{:.1f} s/update",
    "eval_reward": "eval reward {:.3f}",
}


class MetricsFile(TrainerCallback):
    """Writes `metrics.jsonl`, one object per logging step, and prints one line that a person can read.

    What TRL logs only when it generates (reward, lengths, targets) stands in every object: it holds for all the
    optimiser steps that train on that generation.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._latest: dict[str, Any] = {}

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            rewind_metrics(self._folder, state.global_step)

    def on_log(self, args, state, control, logs: dict[str, Any] | None = None, **kwargs):
        if not state.is_world_process_zero or not logs or "train_runtime" in logs:  # the summary of the whole run
            return
        if "loss" in logs:
            logs = self._latest = {**self._latest, **logs}
        append_metrics(self._folder, {"step": state.global_step, **logs})
        clips = "gbpo/outside_bounds" not in logs
        shown = [
            text.format(logs[key])
            for key, text in _SHOWN.items()
            if logs.get(key) is not None and (clips or not key.startswith("clip_ratio"))
        ]
        tqdm.write(f"step {state.global_step}/{state.max_steps}  " + "  ".join(shown))


class ProgressBar(ProgressCallback):
    """transformers' progress bar without its dump of every metric."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        pass
