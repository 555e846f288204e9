"""A generated task with long answers: count on in equal steps, modulo 100."""

import random
from collections.abc import Sequence

from datasets import Dataset

MODULUS = 100
LARGEST_STEP = 9
LENGTH = 10


def start_and_step(rng: random.Random) -> tuple[int, int]:
    """A random start from 0 to 99, and a random step from -9 to 9 without 0."""
    size = rng.randint(1, LARGEST_STEP)
    return rng.randrange(MODULUS), size if rng.random() < 0.5 else -size


def question(start: int, step: int) -> str:
    """The prompt of a chain, for example `47+05`. Numbers have two digits."""
    return f"{start:02d}{step:+03d}"


def answer(step: int, totals: Sequence[int]) -> str:
    r"""An answer with these totals, which start with that of the prompt, for example `47+05=52+05=\boxed{57}`."""
    *others, last = (f"{total:02d}" for total in totals)
    return f"{''.join(f'{total}{step:+03d}=' for total in others)}\\boxed{{{last}}}"


def right_totals(start: int, step: int) -> list[int]:
    """The totals of the right answer, from the start."""
    return [(start + count * step) % MODULUS for count in range(LENGTH + 1)]


def chains(size: int = 2048, seed: int = 0) -> Dataset:
    """Generate the data set, with the columns `prompt` and `solution`.

    Args:
        size: Number of problems.
        seed: Seed of the random problems.
    """
    rng = random.Random(seed)
    problems = [start_and_step(rng) for _ in range(size)]
    return Dataset.from_dict(
        {
            "prompt": [question(*problem) for problem in problems],
            "solution": [f"{right_totals(*problem)[-1]:02d}" for problem in problems],
        }
    )
