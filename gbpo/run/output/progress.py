"""The progress of a run while it trains: the metrics file, one printed line per logging step, and a progress bar."""

import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import ProgressCallback, TrainerCallback

from .folder import append_metrics, read_metrics, rewind_metrics

# metric → how it is printed
_SHOWN = {
    "reward": "reward {:.3f}",
    "loss": "loss {:+.4f}",
    "entropy": "entropy {:.3f}",
    "kl": "kl {:.4f}",
    "completions/mean_length": "length {:.0f}",
    "gbpo/outside_bounds": "{:.1%} of ratios outside the bounds",
    "grad_norm": "grad {:.2f}",
    "step_time": "{:.1f} s/update",
    "eval_reward": "eval reward {:.3f}",
}


class MetricsFile(TrainerCallback):
    """Writes `metrics.jsonl`, one object per logging step, and prints the main metrics in one line.

    TRL logs rewards, lengths and targets only at steps that generate. The file repeats these values for all steps that
    train on the same generation. `elapsed` is the training time so far in seconds, including the time before a
    resume. `peak_memory_gb` is the peak memory of this process, on the GPU if there is one, else in main memory.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._latest: dict[str, Any] = {}

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            rewind_metrics(self._folder, state.global_step)
            rows = read_metrics(self._folder)
            self._elapsed_before = rows[-1].get("elapsed", 0.0) if rows else 0.0
            self._began = time.perf_counter()

    def on_log(self, args, state, control, logs: dict[str, Any] | None = None, **kwargs):
        if not state.is_world_process_zero or not logs or "train_runtime" in logs:  # the final summary
            return
        if "loss" in logs:
            logs = self._latest = {**self._latest, **logs}
        elapsed = self._elapsed_before + time.perf_counter() - self._began
        measured = {"elapsed": round(elapsed, 2), "peak_memory_gb": round(_peak_memory() / 1e9, 3)}
        append_metrics(self._folder, {"step": state.global_step, **measured, **logs})
        shown = [text.format(logs[key]) for key, text in _SHOWN.items() if logs.get(key) is not None]
        tqdm.write(f"step {state.global_step}/{state.max_steps}  " + "  ".join(shown))


class ProgressBar(ProgressCallback):
    """The progress bar of transformers, without printing every metric."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        pass


def _peak_memory() -> float:
    """Peak memory of this process in bytes."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
