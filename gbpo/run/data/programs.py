"""A generated task for the reward `code`: one-line functions, told in words, with tests and a right program."""

import random

from datasets import Dataset

FACTORS = range(2, 10)
SUMMANDS = range(-9, 10)
_INPUTS = (0, 1, 2, 7, -5)


def question(factor: int, summand: int) -> str:
    return f"times {factor}, {'plus' if summand >= 0 else 'minus'} {abs(summand)}"


def program(factor: int, summand: int) -> str:
    return f"def f(x): return x*{factor}{summand:+}\n"


def programs(size: int = 512, seed: int = 0) -> Dataset:
    """`size` functions of one number, as `prompt`, `tests` (assert statements) and `reference`, a right program."""
    rng = random.Random(seed)
    pairs = [(rng.choice(FACTORS), rng.choice(SUMMANDS)) for _ in range(size)]
    return Dataset.from_dict(
        {
            "prompt": [question(*pair) for pair in pairs],
            "tests": [
                "\n".join(f"assert f({x}) == {x * factor + summand}" for x in _INPUTS) for factor, summand in pairs
            ],
            "reference": [program(*pair) for pair in pairs],
        }
    )
