"""The generated task of the demo: sums of two numbers, as questions with their answers."""

import random

from datasets import Dataset


def question(left: int, right: int) -> str:
    return f"{left}+{right}="


def arithmetic(size: int = 2048, seed: int = 0, max_operand: int = 49) -> Dataset:
    """`size` additions of two operands drawn uniformly from 0 to `max_operand`, as `prompt` and `solution`."""
    rng = random.Random(seed)
    pairs = [(rng.randint(0, max_operand), rng.randint(0, max_operand)) for _ in range(size)]
    return Dataset.from_dict(
        {
            "prompt": [question(left, right) for left, right in pairs],
            "solution": [str(left + right) for left, right in pairs],
        }
    )
