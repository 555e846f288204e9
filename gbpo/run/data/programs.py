"""A generated task for the reward `code`: one-line functions described in words, with tests and a correct program."""

import random

from datasets import Dataset

FACTORS = range(2, 10)
SUMMANDS = range(-9, 10)
_INPUTS = (0, 1, 2, 7, -5)


def question(factor: int, summand: int) -> str:
    """The prompt for one function."""
    return f"times {factor}, {'plus' if summand >= 0 else 'minus'} {abs(summand)}"


def program(factor: int, summand: int) -> str:
    """A correct program for the prompt."""
    return f"def f(x): return x*{factor}{summand:+}\n"


def programs(size: int = 512, seed: int = 0) -> Dataset:
    """Generate the data set. Each row asks for a function of one number, such as x → 3x + 5.

    The columns are `prompt`, `tests` (assert statements) and `reference` (a correct program).

    Args:
        size: Number of functions.
        seed: Seed of the random functions.
    """
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
