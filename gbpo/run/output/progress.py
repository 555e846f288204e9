"""The progress of a run while it trains: the metrics file, one printed line per logging step, and a progress bar."""

import resource
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import ProgressCallback, TrainerCallback

from ...shared.pages.formatting import amount, duration
from .folder import append_metrics, read_metrics, rewind_metrics
from .pace import RATE, by_generation, slowest
from .trend import Trend

_RECENT = 65  # logs for the speed, which is that of the last whole generation in them

# metric → how it is printed
_SHOWN = {
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
        self._rewards: list[float] = []
        self._recent: deque[dict[str, Any]] = deque(maxlen=_RECENT)

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            rewind_metrics(self._folder, state.global_step)
            rows = read_metrics(self._folder)
            self._elapsed_before = rows[-1].get("elapsed", 0.0) if rows else 0.0
            self._rewards = [row["reward"] for row in rows if row.get("reward") is not None]
            self._recent.extend(row for row in rows if "loss" in row)
            self._first_step, self._began = state.global_step, time.perf_counter()

    def on_log(self, args, state, control, logs: dict[str, Any] | None = None, **kwargs):
        if not state.is_world_process_zero or not logs or "train_runtime" in logs:  # the final summary
            return
        if "loss" in logs:
            logs = self._latest = {**self._latest, **logs}
        seconds = time.perf_counter() - self._began
        measured = {
            "elapsed": round(self._elapsed_before + seconds, 2),
            "peak_memory_gb": round(_peak_memory() / 1e9, 3),
        }
        row = {"step": state.global_step, **measured, **logs}
        append_metrics(self._folder, row)
        shown = [text.format(logs[key]) for key, text in _SHOWN.items() if logs.get(key) is not None]
        if "loss" in logs:
            self._recent.append(row)
            shown = [*self._reward(row), *shown, *self._pace(), *self._time_left(state, seconds)]
        tqdm.write(f"step {state.global_step}/{state.max_steps}  " + "  ".join(shown))

    def _reward(self, row: dict[str, Any]) -> list[str]:
        """The reward and its trend: the means of the first and of the last fifth of the logs so far."""
        if row.get("reward") is None:
            return []
        self._rewards.append(row["reward"])
        trend = Trend.over(self._rewards)
        change = f" (logs: {trend.first.mean:.2f} -> {trend.last.mean:.2f})" if trend and trend.logs > 1 else ""
        return [f"reward {row['reward']:.3f}{change}"]

    def _pace(self) -> list[str]:
        """The speed of the last whole generation, and what takes the most time in it."""
        before, *rows = self._recent if len(self._recent) == _RECENT else [{}, *self._recent]
        generations = [
            row for row in by_generation(rows, before.get("step", 0), before.get("num_tokens", 0.0)) if RATE in row
        ]
        if len(generations) < 2:  # the first one may last
            return []
        phase = slowest(generations[-1])
        return [f"{amount(generations[-1][RATE])} tokens/s", *([f"{phase[0]} takes {phase[1]:.0%}"] if phase else [])]

    def _time_left(self, state, seconds: float) -> list[str]:
        done = state.global_step - self._first_step
        left = state.max_steps - state.global_step
        return [f"{duration(seconds / done * left)} left"] if done > 0 and left > 0 else []


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
