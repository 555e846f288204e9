"""The generated task of an environment without a data set: rows with a seed, whose prompt the environment completes."""

import random
from collections.abc import Sequence

from datasets import Dataset

EMPTY_PROMPT = [{"role": "user", "content": ""}]


def episodes(size: int = 2048, seed: int = 0, environments: Sequence[str] = ()) -> Dataset:
    """Generate the data set of episodes, with the columns `prompt` and `seed`.

    Args:
        size: Number of episodes.
        seed: Seed of the seeds.
        environments: Names for the column `environment`. The rows take them in turn.
    """
    rng = random.Random(seed)
    columns = {"prompt": [EMPTY_PROMPT] * size, "seed": [rng.getrandbits(31) for _ in range(size)]}
    if environments:
        columns["environment"] = [environments[row % len(environments)] for row in range(size)]
    return Dataset.from_dict(columns)
