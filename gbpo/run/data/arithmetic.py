"""The generated task of the demo: additions of two numbers, and products that the embedded model does not solve."""

import random

from datasets import Dataset


def question(left: int, right: int) -> str:
    """The prompt of one addition."""
    return f"{left}+{right}="


def arithmetic(size: int = 2048, seed: int = 0, max_operand: int = 49, products: float = 0.0) -> Dataset:
    """Generate the data set of additions, with the columns `prompt` and `solution`.

    Args:
        size: Number of problems.
        seed: Seed of the random operands.
        max_operand: Operands of additions are sampled uniformly from 0 to this number.
        products: Share of the problems that are products of two numbers from 10 to 99. They are evenly spread.

    Raises:
        ValueError: `products` is not a share.
    """
    if not 0 <= products <= 1:
        raise ValueError(f"products={products} is not a share of the problems. Write a number in [0, 1].")
    rng = random.Random(seed)
    problems = []
    for number in range(size):
        if int((number + 1) * products) > int(number * products):
            left, right = rng.randint(10, 99), rng.randint(10, 99)
            problems.append((f"{left}*{right}=", left * right))
        else:
            left, right = rng.randint(0, max_operand), rng.randint(0, max_operand)
            problems.append((question(left, right), left + right))
    return Dataset.from_dict(
        {"prompt": [prompt for prompt, _ in problems], "solution": [str(answer) for _, answer in problems]}
    )
