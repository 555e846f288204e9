"""The columns of a data set: renaming them, reading nested values by dotted names, and storing values unchanged."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .literals import read_literal

if TYPE_CHECKING:
    from datasets import Dataset


def rename_columns(dataset: Dataset, columns: Mapping[str, str]) -> tuple[Dataset, list[str]]:
    """Rename columns, and copy nested values to columns of their own.

    Args:
        dataset: The data set.
        columns: New name of each column. The source may be a dotted name: `reward_model.ground_truth` is the value of
            the key `ground_truth` in the column `reward_model`, and a number is a place in a list. JSON text on the
            way is parsed, and the text of a Python dict or list.

    Returns:
        The data set, and one line for each column that was replaced and each nested value that some rows lack.

    Raises:
        ValueError: A source does not exist, or two have one new name. The message is one line that begins with
            `columns`.
    """
    if twice := [name for name in dict.fromkeys(columns.values()) if list(columns.values()).count(name) > 1]:
        sources = ", ".join(source for source, name in columns.items() if name == twice[0])
        raise ValueError(
            f"columns gives the name {twice[0]!r} to {sources}: a column has one source. Keep one of them."
        )
    notes = []
    nested = {}
    for source, name in columns.items():
        if source not in dataset.column_names:
            nested[name] = _nested_values(dataset, source, name)
            missing = [row for row, value in enumerate(nested[name]) if value is None]
            if missing:
                notes.append(
                    f"columns: {source!r} is missing in {len(missing)} of {len(dataset)} rows, first in row "
                    f"{missing[0]}, so these rows have no {name!r}. Correct or remove them."
                )
    replaced = {
        name: source
        for source, name in columns.items()
        if name in dataset.column_names and name not in columns  # a source of the same name gives its name away
    }
    notes += [f"columns: {source!r} replaces the column {name!r} of the data set." for name, source in replaced.items()]
    dataset = dataset.remove_columns([name for name in replaced if name not in nested])
    dataset = dataset.rename_columns({source: name for source, name in columns.items() if name not in nested})
    for name, values in nested.items():
        dataset = with_column(dataset, name, storable(values))
    return dataset, notes


def with_column(dataset: Dataset, name: str, values: Sequence[Any]) -> Dataset:
    """The data set with a column added or replaced. Objects keep their keys, also if they differ between rows."""
    if not _have_one_type(values):
        return _with_mixed_column(dataset, name, values)
    if name not in dataset.column_names:
        return dataset.add_column(name, list(values))
    new = f"new {name}"  # added before the old one is removed, because a data set without columns has no rows
    return dataset.add_column(new, list(values)).remove_columns(name).rename_column(new, name)


def _with_mixed_column(dataset: Dataset, name: str, values: Sequence[Any]) -> Dataset:
    """As `with_column`, in a form that Arrow stores as JSON: it would give all objects the same keys, with nulls."""
    from datasets import Dataset, concatenate_datasets

    column = Dataset.from_dict({name: list(values)}, on_mixed_types="use_json")
    others = [other for other in dataset.column_names if other != name]
    return concatenate_datasets([dataset.select_columns(others), column], axis=1) if others else column


def storable(values: Sequence[Any]) -> list[Any]:
    """The values of a column, in a form that Arrow stores without changing any of them.

    Arrow gives the values of a column one type: beside 2.5, the number 4 would become 4.0. If types differ, also inside
    lists and objects, or if objects have different keys, every value that is not text becomes JSON text.

    >>> storable([4, None, 5]), storable([4, 2.5, "none"])
    ([4, None, 5], ['4', '2.5', 'none'])
    """
    if _have_one_type(values):
        return list(values)
    return [value if value is None or isinstance(value, str) else _as_json(value) for value in values]


def _have_one_type(values: Sequence[Any]) -> bool:
    present = [value for value in values if value is not None]
    types = {type(value) for value in present}
    if len(types) > 1:
        return False
    if types == {list}:
        return _have_one_type([item for value in present for item in value])
    if types == {dict}:
        keys = present[0].keys()
        return all(value.keys() == keys for value in present) and all(
            _have_one_type([value[key] for value in present]) for key in keys
        )
    return types != {int} or all(-(2**63) <= value < 2**63 for value in present)


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _nested_values(dataset: Dataset, source: str, name: str) -> list[Any]:
    """The values that a dotted name gives, one per row."""
    words = source.split(".")
    starts = [".".join(words[:end]) for end in range(len(words) - 1, 0, -1)]
    column = next((start for start in starts if start in dataset.column_names), None)
    if column is None:
        fix = f"Write one of these columns for {name!r}."
        if name in dataset.column_names:
            other = "another of these columns" if "." in source else f"{{{name}: {source}}} to rename it"
            fix = f"The column {name!r} exists: leave this entry out to use it, or write {other}."
        listed = ", ".join(dataset.column_names)
        raise ValueError(f"columns names {source!r}, but the data set has the columns {listed}. {fix}")
    path = source.removeprefix(f"{column}.")
    values = [_value_at(value, path.split(".")) for value in dataset[column]]
    if all(value is None for value in values) and values:
        raise ValueError(
            f"columns names {source!r}, but no row has {path!r} in the column {column!r}, whose first value is "
            f"{_as_json(dataset[0][column])[:200]}. Write another name for {name!r}."
        )
    return values


def _value_at(value: Any, path: Sequence[str]) -> Any:
    """The value inside objects and lists; None if there is none."""
    for key in path:
        if isinstance(value, str):
            try:
                value = read_literal(value)
            except (ValueError, RecursionError):
                return None
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value
