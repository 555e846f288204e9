"""Seconds until the demo task is solved by `GBPOTrainer` and by `trl.GRPOTrainer`.

All trainers train recipes/tiny_math.yaml with the same settings from the same starting model, one process after the
other. GBPO runs with the recipe's target, and with the exact target and an overshoot slope of 0.2, which did not differ
significantly from GRPO in the stability study. Each repeat uses another seed, starting from 0.

A run ends when the mean reward of the last 20 optimiser steps exceeds 0.8. `training` is the time since the first step
began, `whole` the time since the process started, including imports. A run that never reaches this reward counts as
infinite.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from gbpo.run.models import catalogue as models
from gbpo.run.models.tiny import character_tokenizer
from gbpo.shared.packages import find_recipe, import_root, launch_words

from .measuring import BenchResult, Measurement, bench_result
from .timed import random_model

_GBPO, _TRL = launch_words(), "TRL's GRPO"
_CONTENDERS = {  # name: command, flags
    "GBPO": (_GBPO, []),
    "GBPO, exact, κ 0.2": (_GBPO, ["--target_baseline=exact", "--overshoot_slope=0.2"]),
    _TRL: (["-m", f"{__package__}.trl_run"], []),
}
_WINDOW = 20  # optimiser steps
_REWARD = 0.8
_POLL = 0.2  # seconds between two reads of the metrics
_GRACE = 30  # seconds for a process to end after SIGTERM


def run(options: argparse.Namespace) -> BenchResult:
    """Measure each contender, and the ratio of each GBPO run to the TRL run with the same seed."""
    flags, window, reward = [], _WINDOW, _REWARD
    times: dict[str, list[_Time]] = {name: [] for name in _CONTENDERS}
    with tempfile.TemporaryDirectory() as folder:
        if options.quick:
            flags, window, reward = _quick_flags(Path(folder) / "model"), 2, -1.0
        else:
            recipe = yaml.safe_load(find_recipe("tiny_math").read_text())
            models.local_model(recipe["model_name_or_path"])  # built before the time is measured
        for seed in range(options.repeats):
            for name, (start, own) in _CONTENDERS.items():
                output = Path(folder) / f"{len(times[name])} {name}"
                times[name].append(_time(start, [*flags, *own, f"--seed={seed}"], output, window, reward))
    found, notes = [], []
    for part in ("training", "whole"):
        values = {name: [getattr(taken, part) for taken in all_taken] for name, all_taken in times.items()}
        found += [Measurement(f"{name}, {part}", seconds, "s") for name, seconds in values.items()]
        trl = values.pop(_TRL)
        for name, ours in values.items():
            ratios = [a / b if math.isfinite(a) else math.inf for a, b in zip(ours, trl, strict=True)]
            found.append(Measurement(f"{name} / TRL, {part}", ratios, ""))
    for name, all_taken in times.items():
        steps = [taken.steps for taken in all_taken]
        notes.append(
            f"{name}: optimiser steps until the mean reward of {window} steps exceeds {reward:g}, by seed: {steps}"
        )
    return bench_result(found, notes)


@dataclass(frozen=True)
class _Time:
    """Time until the reward was reached.

    Args:
        training: Seconds since the training began.
        whole: Seconds since the process started.
        steps: Optimiser steps, or None if the run ended before reaching the reward.
    """

    training: float
    whole: float
    steps: int | None


def _time(start: list[str], flags: list[str], output: Path, window: int, reward: float) -> _Time:
    """Run a contender until the reward is reached.

    Raises:
        RuntimeError: The run failed.
    """
    recipe = str(find_recipe("tiny_math"))
    command = [sys.executable, *start, recipe, *flags, f"--output_dir={output}", "--log_completions=false"]
    # one log per generation, which is two optimiser steps
    command.append("--logging_steps=2")
    environment = {**os.environ, "PYTHONPATH": str(import_root())}
    log = output.with_suffix(".log")
    with log.open("w") as out:
        began = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
        try:
            while True:
                ended = process.poll() is not None
                if (row := _reached(output / "metrics.jsonl", window, reward)) is not None:
                    return _Time(row["elapsed"], time.perf_counter() - began, row["step"])
                if ended:
                    break
                time.sleep(_POLL)
        finally:
            _end(process)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}:\n{log.read_text()[-2000:]}")
    return _Time(math.inf, math.inf, None)


def _reached(metrics: Path, window: int, reward: float) -> dict[str, Any] | None:
    """First log at which the mean reward of the last `window` optimiser steps exceeds `reward`, or None."""
    if not metrics.is_file():
        return None
    lines = metrics.read_text().splitlines(keepends=True)
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    logged = [row for row in rows if "reward" in row]
    for i, row in enumerate(logged):
        last = [r["reward"] for r in logged[: i + 1] if r["step"] > row["step"] - window]
        if row["step"] >= window and fmean(last) > reward:
            return row
    return None


def _end(process: subprocess.Popen) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _quick_flags(model: Path) -> list[str]:
    """Save an untrained model, and return the flags of a run of two steps."""
    tokenizer = character_tokenizer()
    random_model(vocab_size=len(tokenizer), hidden_size=64, intermediate_size=192, num_hidden_layers=2).save_pretrained(
        model
    )
    tokenizer.save_pretrained(model)
    return [f"--model_name_or_path={model}", "--max_steps=2", "--per_device_train_batch_size=8"]
