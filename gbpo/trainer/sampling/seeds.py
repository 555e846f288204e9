"""Seeds for sampling with vLLM, which samples in the trainer's process and would change the trainer's random state."""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from accelerate.utils import set_seed


class SamplingSeeds:
    """One random stream per generation. It depends on the seed, the optimiser step, "train" or "eval", and the engine.

    So runs with different seeds sample differently, and a resumed run samples the same completions as an uninterrupted
    run.

    Args:
        seed: Seed of the run.
        replica: Number of the engine. The processes of one tensor-parallel group are one engine and share this number.
    """

    def __init__(self, seed: int, replica: int):
        self._seed, self._replica = seed, replica
        self._generations: Counter[tuple[int, str]] = Counter()  # by optimiser step and mode

    def next_stream(self, step: int, mode: str) -> random.Random:
        """The stream of the next generation at this optimiser step."""
        place = (step, mode)
        stream = self.stream(step, mode, self._generations[place])
        self._generations[place] += 1
        return stream

    def stream(self, step: int, mode: str, number: int) -> random.Random:
        """The stream of generation `number` at this optimiser step. 0 is the first."""
        return random.Random(f"{self._seed} {(step, mode)} {number} {self._replica}")


@contextmanager
def random_state(seed: int, device: torch.device) -> Iterator[None]:
    """Within this context, all random states that an engine uses are seeded. They are restored afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices, device_type="cuda" if device.type == "cpu" else device.type):
        set_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
