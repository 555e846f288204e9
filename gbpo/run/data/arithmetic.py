"""The generated task of the demo: additions of two numbers."""

import random

from datasets import Dataset


def question(left: int, right: int) -> str:
    """The prompt of one addition."""
    return f"{left}+{right}="


def arithmetic(size: int = 2048, seed: int = 0, max_operand: int = 49) -> Dataset:
    """Generate the data set of additions, with the columns `prompt` and `solution`.

    Args:
        size: Number of additions.
        seed: Seed of the random operands.
        max_operand: Operands are sampled uniformly from 0 to this number.
    """
    rng = random.Random(seed)
    pairs = [(rng.randint(0, max_operand), rng.randint(0, max_operand)) for _ in range(size)]
    return Dataset.from_dict(
        {
            "prompt": [question(left, right) for left, right in pairs],
            "solution": [str(left + right) for left, right in pairs],
        }
    )
