r"""Extractors: read a value, such as the reference answer, out of the text or the row that contains it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .boxed import last_boxed
from .columns import storable, with_column
from .dotted_path import import_dotted
from .literals import read_literal

if TYPE_CHECKING:
    from datasets import Dataset

# commas between thousands, but not the commas of a list, a pair or an interval
_THOUSANDS = re.compile(r"(?<![\d,.(\[{])\d{1,3}(?:,\d{3})+(?![\d,)\]}])")
_NAMES = "'after ####', 'last box', 'json list', or the dotted path of your own function"


def extract(dataset: Dataset, extractors: Mapping[str, str]) -> tuple[Dataset, list[str]]:
    r"""Replace the values of columns by what extractors find.

    - `after MARKER`, for example `after ####`: the rest of the line after the last marker, without commas between
      thousands.
    - `last box`: the content of the last `\boxed{}`.
    - `json list`: the element of a list with one element. The list may be JSON text. A list of several elements has no
      single answer, so nothing is found in it.
    - the dotted path of your own function. It gets each row as a dict, and returns the value, or None for nothing.

    Args:
        dataset: The data set, with its columns renamed.
        extractors: Extractor of each column.

    Returns:
        The data set, and one line for each column in which nothing was found in some rows. Their value is None.

    Raises:
        ValueError: An extractor is unknown or fails, a column does not exist, or nothing is found in any row. The
            message is one line that begins with `extract`.
    """
    notes = []
    for name, how in extractors.items():
        values = _values(dataset, name, how)
        missing = [row for row, value in enumerate(values) if value is None]
        if missing:
            line = (
                f"extract: {how!r} finds nothing for {name!r} in {len(missing)} of {len(dataset)} rows, first in row "
                f"{missing[0]}: {str(dataset[missing[0]].get(name))[-100:]!r}."
            )
            if len(missing) == len(dataset):
                raise ValueError(f"{line} Write another extractor, or leave it out.")
            notes.append(f"{line} These rows have no {name!r}: correct or remove them.")
        dataset = with_column(dataset, name, storable(values))
    return dataset, notes


def _values(dataset: Dataset, name: str, how: str) -> list[Any]:
    """What an extractor finds in each row. None stands for nothing."""
    if _is_dotted_path(how):
        found = _returned(dataset, how)
    elif name in dataset.column_names:
        find = _named(how)
        found = [find(value) for value in dataset[name]]
    else:
        raise ValueError(
            f"extract names the column {name!r}, but the data set has {', '.join(dataset.column_names)}. Write one of "
            f"these columns, or rename one of them to {name!r}."
        )
    return [None if isinstance(value, str) and not value.strip() else value for value in found]


def _is_dotted_path(how: str) -> bool:
    return "." in how and all(word.isidentifier() for word in how.split("."))


def _returned(dataset: Dataset, how: str) -> list[Any]:
    """What the user's own function returns for each row."""
    try:
        function = import_dotted(how, "extract: the function")
    except ValueError as error:
        raise ValueError(f"{error} The extractors are {_NAMES}.") from None
    values = []
    for number, row in enumerate(dataset):
        try:
            values.append(function(row))
        except Exception as error:  # the user's function may raise any error
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(
                f"extract: {how!r} fails in row {number} with {reason}. Correct the function: it gets the row as a "
                "dict, and may return None."
            ) from error
    return values


def _named(how: str) -> Callable[[Any], Any]:
    """The function of a named extractor. It gets the value of the column."""
    if how == "last box":
        return lambda value: last_boxed(value) if isinstance(value, str) else None
    if how == "json list":
        return _only_element
    word, _, marker = how.strip().partition(" ")
    if word == "after" and marker:
        return lambda value: _after(value, marker) if isinstance(value, str) else None
    if word == "after":
        raise ValueError(
            f"extract: {how!r} has no marker, so nothing could be found. YAML takes # after a space for a comment: "
            "write the extractor in quotes, 'after ####'."
        )
    raise ValueError(f"extract: the extractor {how!r} is unknown. Write {_NAMES}.")


def _after(text: str, marker: str) -> str | None:
    r"""The rest of the line after the last marker.

    >>> _after("4 + 1,196 = 1,200\n#### 1,200", "####")
    '1200'
    """
    _, found, rest = text.rpartition(marker)
    lines = rest.strip().splitlines()
    if not found or not lines:
        return None
    return _THOUSANDS.sub(lambda number: number.group().replace(",", ""), lines[0].strip())


def _only_element(value: Any) -> str | None:
    """The element of a list with one element, as text.

    >>> _only_element('["54"]'), _only_element([54]), _only_element('["54", "55"]')
    ('54', '54', None)
    """
    if isinstance(value, str):
        try:
            value = read_literal(value, parse_int=str, parse_float=str)  # numbers of JSON stay as they are written
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, list) or len(value) != 1 or isinstance(value[0], (list, dict)) or value[0] is None:
        return None
    return str(value[0])
