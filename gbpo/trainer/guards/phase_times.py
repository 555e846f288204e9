"""`PhasedGRPOTrainer`: TRL's GRPOTrainer that logs where the time of its optimiser steps goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import TrainerCallback
from trl import GRPOTrainer

PHASES = ("generate", "reward", "old", "loss", "optimiser")


class PhasedGRPOTrainer(GRPOTrainer):
    """TRL's GRPOTrainer with the metrics `time/<phase>`, seconds of each optimiser step on its process.

    `generate`: completions; `reward`: all rewards, without completions that they ask for; `old`: forward passes for old
    and reference log-probs; `loss`: the rest of the training steps, forward, backward and metrics; `optimiser`: from
    the last backward to the end of the step. Together they are the step, less loading of prompts, logs, checkpoints and
    evaluation. By the clock, without waiting for an accelerator: what it still works on counts in the phase that waits.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._running: list[str] = []  # a phase inside another stops that one's clock
        self._since = 0.0
        self.add_callback(_StepEnd(self))

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self._tick()
        self._running.append(name)
        try:
            yield
        finally:
            self._tick()
            self._running.pop()

    def _tick(self) -> None:
        now = time.perf_counter()
        if self._running and self.model.training:
            self._seconds[self._running[-1]] += now - self._since
        self._since = now

    def _generate(self, prompts):
        with self._phase("generate"):
            return super()._generate(prompts)

    def _calculate_rewards(self, *args, **kwargs):
        with self._phase("reward"):
            return super()._calculate_rewards(*args, **kwargs)

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        with self._phase("loss" if torch.is_grad_enabled() else "old"):
            return super()._get_per_token_logps_and_entropies(*args, **kwargs)

    def training_step(self, *args, **kwargs):
        with self._phase("loss"):
            return super().training_step(*args, **kwargs)

    def _end_step(self) -> None:
        self._seconds["optimiser"] += time.perf_counter() - self._since
        for name in PHASES:
            self._metrics["train"][f"time/{name}"].append(self._seconds[name])
            self._seconds[name] = 0.0


class _StepEnd(TrainerCallback):
    def __init__(self, trainer: PhasedGRPOTrainer):
        self._trainer = trainer

    def on_step_end(self, args, state, control, **kwargs):
        self._trainer._end_step()
