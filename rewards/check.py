"""Check that a reward grades the reference answers of a data set as correct.

If a reference answer is not graded as correct, correct completions of the same row get no reward.

    python -m rewards.check problems.jsonl --reward math --columns '{"answer": "solution"}' --show 5

The command prints the number and the status of every row whose reference answer fails. If any row fails, the exit
status is 1. `math` grades each reference answer as an answer to itself in several spellings. `exact_match` asks whether
a model could write it. `code` reads the tests and, if the data set has a column `reference` with correct programs, runs
them. A reference answer that is misread may still equal itself. `--show N` prints what the reward understands the first
N reference answers to be.
"""

from __future__ import annotations

import argparse
import inspect
import random
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from . import get_reward
from .programs.suites.rows import read_suites
from .shared.batch import REWARDS
from .shared.columns import rename_columns
from .shared.data_files import FILE_FORMATS, load_file
from .shared.extraction import extract

SAMPLE = 256  # number of random rows that are checked before a run
TOLERATED = 0.01  # fraction of these rows that may fail

_SHOWN_COLUMNS = ("solution", "tests", "reference")


def failing_references(reward: Callable[..., Any], columns: Mapping[str, Sequence[Any]]) -> list[tuple[int, str]]:
    """Find the rows whose reference answer does not grade itself as correct.

    Args:
        reward: A reward. If it has a method `check_references(**columns) -> statuses`, this function calls the method.
        columns: The data set's columns by name, all of the same length.

    Returns:
        The number and the status of each failing row. A status may be a sentence that says what to do. Empty for a
        reward without `check_references`.

    >>> failing_references(get_reward("exact_match"), {"solution": ["57", None]})
    [(1, 'no_gold')]
    """
    if not hasattr(reward, "check_references"):
        return []
    return [(row, status) for row, status in enumerate(reward.check_references(**columns)) if status != "ok"]


def check_sample(name: str, reward: Callable[..., Any], dataset: Any) -> None:
    """Check the reference answers of up to `SAMPLE` random rows before a run.

    Args:
        name: The name of the reward, for the error.
        reward: The reward.
        dataset: A `datasets.Dataset`.

    Raises:
        ValueError: More than the fraction `TOLERATED` of the rows fail.
    """
    if not hasattr(reward, "check_references"):
        return
    rows = sorted(random.Random(0).sample(range(len(dataset)), min(SAMPLE, len(dataset))))
    sample = dataset.select(rows)
    failing = failing_references(reward, {column: sample[column] for column in sample.column_names})
    if len(failing) > TOLERATED * len(rows):
        first = {status: place for place, status in reversed(failing)}
        shown = [(place, status) for place, status in failing if status in REWARDS or first[status] == place][:5]
        listed = ", ".join(f"row {rows[place]}: {status}" for place, status in shown)
        raise ValueError(
            f"The reference answers of {len(failing)} of {len(rows)} rows do not grade themselves as correct by the "
            f"reward {name!r} ({listed}{', …' if len(failing) > len(shown) else ''}), so correct completions get no "
            f"reward. Correct or remove these rows; `python -m rewards.check DATASET --reward {name}` prints all of "
            "them."
        )


def check_server(reward: Callable[..., Any], dataset: Any) -> str | None:
    """Ask the server of a reward for the score of one completion, before a run.

    Args:
        reward: The reward.
        dataset: A `datasets.Dataset`.

    Returns:
        One line with what the server answered, or None for a reward without a server.

    Raises:
        ValueError: The server does not answer or gives no score. The message is one line.
    """
    return reward.check_server(dataset[:1]) if hasattr(reward, "check_server") else None


def main(argv: Sequence[str] | None = None) -> None:
    """Grade the reference answers of a data set and print the rows whose reference answer fails."""
    parser = make_parser()
    options = parser.parse_args(argv)
    try:
        columns = _load(options.dataset, options.split, options.columns, options.extract, options.reward == "code")
        reward = get_reward(options.reward, **options.reward_kwargs)
        if not hasattr(reward, "check_references"):
            raise ValueError(
                f"The reward {options.reward!r} has no method check_references, so no reference answer can be checked. "
                "Name a reward that has it, such as exact_match, or write a class with this method."
            )
        _check_columns(options, reward, columns)
        understood = _understood(reward, {name: values[: options.show] for name, values in columns.items()})
        failing = failing_references(reward, columns)
    except (ValueError, TypeError) as error:
        parser.error(str(error))
    for row, text in enumerate(understood):
        reference = next((repr(values[row]) for name, values in columns.items() if name in _SHOWN_COLUMNS), "")
        print(f"row {row}: {reference[:100]} -> {text}")
    for row, status in failing:
        excerpt = {name: str(values[row])[:100] for name, values in columns.items() if name in _SHOWN_COLUMNS}
        print(f"row {row}: {status}  {excerpt}")
    rows = len(next(iter(columns.values())))
    print(f"{rows - len(failing)} of {rows} reference answers grade themselves as correct")
    raise SystemExit(1 if failing else 0)


def _check_columns(options: argparse.Namespace, reward: Any, columns: Mapping[str, Sequence[Any]]) -> None:
    """Raise `ValueError` if the data set lacks a column that the reward reads."""
    for name, parameter in inspect.signature(reward.check_references).parameters.items():
        if parameter.kind is not parameter.VAR_KEYWORD and parameter.default is parameter.empty and name not in columns:
            raise ValueError(
                f"The reward {options.reward!r} reads the column {name!r}, but {options.dataset!r} has "
                f"{', '.join(columns)}. Rename a column, for example --columns '{{answer: {name}}}'."
            )


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line. It is not that of gbpo, because rewards import nothing from gbpo."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("the following arguments are required"):
            message = "Missing: " + message.partition(": ")[2]
            message += ". Without them there is nothing to check. Write gbpo check problems.jsonl --reward math, for "
            message += "example."
        print(f"{self.prog}: error: {' '.join(message.split())}", file=sys.stderr, flush=True)
        raise SystemExit(2)


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = _Parser(prog="gbpo check", description=main.__doc__)
    add = parser.add_argument
    add("dataset", help="a jsonl, json, parquet or csv file, or the name of a data set on the Hub")
    add("--reward", required=True, help="name or dotted path of the reward")
    add("--reward_kwargs", type=_mapping, default={}, help="options of the reward, such as '{workers: 4}' (none)")
    add("--columns", type=_names, default={}, help="columns to rename, such as '{answer: solution}' (none)")
    add("--extract", type=_names, default={}, help="extractors, such as '{solution: last box}' (none)")
    add("--split", default="train", help="split of a data set on the Hub (train)")
    add("--show", type=int, default=0, metavar="N", help="print how the first N reference answers are parsed (0)")
    return parser


class _Loader(yaml.SafeLoader):
    """Reads 1e-6 as a number, as recipes do. PyYAML reads it as text."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]\d+$"), [*"-+0123456789"])


def _mapping(text: str) -> dict[str, Any]:
    """A mapping as in a recipe, or as JSON."""
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not a mapping. Write it as {{key: value}}.")
    for key, one in value.items():
        if one is None and ":" in str(key):
            spaced = str(key).replace(":", ": ", 1)
            raise argparse.ArgumentTypeError(f"{text!r} has no space after a colon. Write {{{spaced}}}.")
        if not isinstance(key, str):
            raise argparse.ArgumentTypeError(f"{text!r} has the name {key!r}, which is not text. Put it in quotes.")
    return value


def _names(text: str) -> dict[str, str]:
    """A mapping of names to names."""
    for value in (names := _mapping(text)).values():
        if not isinstance(value, str):
            raise argparse.ArgumentTypeError(f"{text!r} has the value {value!r}, which is not text. Write a name.")
    return names


def _understood(reward: Callable[..., Any], columns: Mapping[str, Sequence[Any]]) -> list[str]:
    """What the reward understands each reference answer to be; empty for a reward without `read_references`."""
    return reward.read_references(**columns) if hasattr(reward, "read_references") else []


def _load(
    name: str, split: str, columns: Mapping[str, str], extractors: Mapping[str, str], suites: bool
) -> dict[str, list[Any]]:
    """The columns of a data set. `suites`: the column `tests` has suites of tests of programs."""
    import datasets

    datasets.disable_progress_bars()
    if Path(name).suffix in FILE_FORMATS or Path(name).is_file():
        dataset = load_file(name)
    else:
        try:
            dataset = datasets.load_dataset(name, split=split)
        except Exception as error:  # the Hub client raises many types of errors
            raise ValueError(
                f"{name!r}, split {split!r}, could not be loaded from the Hub: {error} Check the name and the "
                "connection, or give a local file."
            ) from None
    if not len(dataset):
        raise ValueError(f"{name!r}, split {split!r}, has zero rows, so there is nothing to check. Give another split.")
    try:
        dataset, notes = rename_columns(dataset, columns)
        dataset, others = extract(dataset, extractors)
    except ValueError as error:
        raise ValueError(f"--{error}") from None
    for note in notes + others:
        print(f"--{note}", file=sys.stderr)
    if suites and "tests" in dataset.column_names:
        dataset, notes = read_suites(dataset)
        for note in notes:
            print(note, file=sys.stderr)
    return {column: list(dataset[column]) for column in dataset.column_names}


if __name__ == "__main__":
    main()
