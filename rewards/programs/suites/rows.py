"""Turn the column `tests` of a data set into forms of the reward `code`, with the help of the columns beside it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from .formats import NEIGHBOURS, json_text, read_suite

if TYPE_CHECKING:
    from datasets import Dataset

TOLERATED = 0.01  # fraction of the rows whose tests may be unreadable


def read_suites(dataset: Dataset) -> tuple[Dataset, list[str]]:
    """Turn the column `tests` into text that the reward `code` reads without any other column.

    Args:
        dataset: A data set with a column `tests`.

    Returns:
        The data set, and lines that say which forms it had and which rows cannot be read. These rows stay as they are.

    Raises:
        ValueError: More than the fraction `TOLERATED` of the rows cannot be read. The message is one line.
    """
    forms: dict[str, Counter[str]] = {}
    texts, unreadable = [], []
    beside = [name for name in NEIGHBOURS if name in dataset.column_names]
    for number, row in enumerate(dataset.select_columns(["tests", *beside])):
        tests = row.pop("tests")
        try:
            suite = read_suite(tests, row)
        except ValueError as error:
            unreadable.append(f"row {number}: {error}")
            texts.append(tests if isinstance(tests, str) else "" if tests is None else _as_text(tests))
            continue
        forms.setdefault(suite.form, Counter())[suite.kind] += 1
        texts.append(suite.tests if isinstance(suite.tests, str) else _as_text(suite.tests))
    notes = [_summary(forms)] if forms else []
    if unreadable:
        line = (
            f"tests: {len(unreadable)} of {len(texts)} rows cannot be read, so their completions get no reward; "
            f"{unreadable[0]}"
        )
        if len(unreadable) > TOLERATED * len(texts):
            raise ValueError(f"{line}. Correct or remove these rows.")
        notes.append(f"{line}.")
    # `map` cannot change the type of a column, and a data set without columns has no rows
    dataset = dataset.add_column("read_tests", texts).remove_columns("tests")
    return dataset.rename_column("read_tests", "tests"), notes


def _summary(forms: dict[str, Counter[str]]) -> str:
    """One line, such as `tests: LiveCodeBench's form, 512 rows: stdin 400, call 112`."""
    parts = []
    for form, kinds in forms.items():
        rows = f"{kinds.total():,} row{'' if kinds.total() == 1 else 's'}"
        counts = ", ".join(f"{kind} {count:,}" for kind, count in sorted(kinds.items(), reverse=True))
        parts.append(f"{form}, {rows}" if set(kinds) == {"python"} else f"{form}, {rows}: {counts}")
    return f"tests: {'; '.join(parts)}"


def _as_text(tests: Any) -> str:
    """The tests as JSON, or as Python writes them if they have tuples, sets or keys that are no texts."""
    try:
        return json_text(tests)
    except TypeError:
        return repr(tests)
