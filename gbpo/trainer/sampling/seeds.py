"""Random states of a vLLM engine, which samples in the trainer's process and reseeds it."""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from accelerate.utils import set_seed


class SamplingSeeds:
    """One random stream for each generation, from the seed, the optimiser step, the mode and the replica.

    Two seeds give two samples, and a resumed run draws what the uninterrupted one would have drawn.

    Args:
        seed: The run's.
        replica: Number of the engine; the processes of one tensor-parallel group sample the same prompts together.
    """

    def __init__(self, seed: int, replica: int):
        self._seed, self._replica = seed, replica
        self._generations: Counter[tuple[int, str]] = Counter()  # by optimiser step and mode

    def next_stream(self, step: int, mode: str) -> random.Random:
        """The stream of the next generation at this optimiser step."""
        place = (step, mode)
        stream = random.Random(f"{self._seed} {place} {self._generations[place]} {self._replica}")
        self._generations[place] += 1
        return stream


@contextmanager
def random_state(seed: int, device: torch.device) -> Iterator[None]:
    """Seed all random states that an engine draws from, and restore them afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices, device_type="cuda" if device.type == "cpu" else device.type):
        set_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
