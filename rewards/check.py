"""Do the golds of a data set grade themselves as 1.0? One that does not would punish right answers, or pay nobody.

    python -m rewards.check problems.jsonl --reward math --columns '{"answer": "solution"}'

prints every row whose gold fails, with its status, and exits with status 1 when there is one. A gold is never compared
with itself as text: `math` reads it once as gold and once as an answer, and compares the two; `code` reads the tests
and, where the data set has a column `reference` with a right program, runs it.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import get_reward

SAMPLE = 256  # rows that a run looks at before it starts
TOLERATED = 0.01  # share of them whose gold may fail

_FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}


def failing_golds(reward: Callable[..., Any], columns: Mapping[str, Sequence[Any]]) -> list[tuple[int, str]]:
    """The rows whose gold does not grade itself as 1.0, with their status; empty for a reward that reads no gold.

    Args:
        reward: A reward; it is asked through its method `check_golds(**columns) -> statuses`, if it has one.
        columns: The data set's columns by name, all of one length.

    >>> failing_golds(get_reward("exact_match"), {"solution": ["57", None]})
    [(1, 'no_gold')]
    """
    if not hasattr(reward, "check_golds"):
        return []
    return [(row, status) for row, status in enumerate(reward.check_golds(**columns)) if status != "ok"]


def check_sample(name: str, reward: Callable[..., Any], dataset: Any) -> None:
    """Check up to `SAMPLE` random rows of a `datasets.Dataset` before a run.

    Raises:
        ValueError: More than `TOLERATED` of them fail.
    """
    if not hasattr(reward, "check_golds"):
        return
    rows = sorted(random.Random(0).sample(range(len(dataset)), min(SAMPLE, len(dataset))))
    sample = dataset.select(rows)
    failing = failing_golds(reward, {column: sample[column] for column in sample.column_names})
    if len(failing) > TOLERATED * len(rows):
        shown = ", ".join(f"row {rows[place]}: {status}" for place, status in failing[:5])
        raise ValueError(
            f"The golds of {len(failing)} of {len(rows)} rows do not grade themselves as 1.0 by the reward {name!r} "
            f"({shown}{', …' if len(failing) > 5 else ''}), so right answers would earn nothing. Mend or drop these "
            f"rows; `python -m rewards.check DATASET --reward {name}` prints all of them."
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Grade all golds of a data set and print those that fail."""
    parser = argparse.ArgumentParser(prog="python -m rewards.check", description=main.__doc__)
    parser.add_argument("dataset", help="a jsonl, json, parquet or csv file, or a Hub id")
    parser.add_argument("--reward", required=True, help="name or dotted path of the reward")
    parser.add_argument("--reward_kwargs", type=json.loads, default={}, help="its options, as '{\"workers\": 4}'")
    parser.add_argument("--columns", type=json.loads, default={}, help='to rename, as \'{"answer": "solution"}\'')
    parser.add_argument("--split", default="train")
    options = parser.parse_args(argv)
    try:
        columns = _load(options.dataset, options.split, options.columns)
        failing = failing_golds(get_reward(options.reward, **options.reward_kwargs), columns)
    except (ValueError, TypeError) as error:
        parser.error(" ".join(str(error).split()))
    for row, status in failing:
        excerpt = {name: str(values[row])[:100] for name, values in columns.items() if name in _GOLDS}
        print(f"row {row}: {status}  {excerpt}")
    rows = len(next(iter(columns.values())))
    print(f"{rows - len(failing)} of {rows} golds grade themselves as 1.0")
    raise SystemExit(1 if failing else 0)


_GOLDS = ("solution", "tests", "reference")


def _load(name: str, split: str, renamed: Mapping[str, str]) -> dict[str, list[Any]]:
    import datasets

    datasets.disable_progress_bars()
    path = Path(name).expanduser()
    if path.suffix in _FORMATS:
        if not path.is_file():
            raise ValueError(f"{name!r} not found from {Path.cwd()}")
        dataset = datasets.load_dataset(_FORMATS[path.suffix], data_files=str(path), split="train")
    else:
        dataset = datasets.load_dataset(name, split=split)
    missing = set(renamed) - set(dataset.column_names)
    if missing or not len(dataset):
        raise ValueError(f"{name!r} has {len(dataset)} rows and the columns {', '.join(dataset.column_names)}")
    return {renamed.get(column, column): list(dataset[column]) for column in dataset.column_names}


if __name__ == "__main__":
    main()
