"""`PhaseTimes`: how long each phase of an optimiser step takes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from transformers import TrainerCallback

PHASES = ("wait", "generate", "reward", "old", "loss", "optimiser")


class PhaseTimes(TrainerCallback):
    """Logs `time/<phase>` for each optimiser step: seconds on this process.

    `wait`: waiting for a server that samples ahead. `generate`: generating completions. `reward`: computing all
    rewards, without the extra completions that rewards ask for. `old`: forward passes for old and reference log-probs.
    `loss`: the rest of the training steps, which is forward, backward and metrics. `optimiser`: from the last backward
    to the end of the step. The sum of the phases is the time of the step without loading prompts, logging, checkpoints
    and evaluation. A GPU works asynchronously, so its work counts in the phase that waits for the result.

    Args:
        log: Called with the name and the value of each metric.
    """

    def __init__(self, log: Callable[[str, float], None] = lambda name, value: None):
        self._log = log
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._running: list[str] = []  # an inner phase stops the clock of the outer one
        self._since = 0.0

    @contextmanager
    def measure(self, phase: str, *, counts: bool = True) -> Iterator[None]:
        """Time a block as part of a phase. With `counts=False`, the time of the block counts in no phase."""
        self._tick()
        self._running.append(phase if counts else "")
        try:
            yield
        finally:
            self._tick()
            self._running.pop()

    def _tick(self) -> None:
        now = time.perf_counter()
        if self._running and self._running[-1]:
            self._seconds[self._running[-1]] += now - self._since
        self._since = now

    def on_step_end(self, args, state, control, **kwargs):
        self._seconds["optimiser"] += time.perf_counter() - self._since
        for phase in PHASES:
            self._log(f"time/{phase}", self._seconds[phase])
            self._seconds[phase] = 0.0
