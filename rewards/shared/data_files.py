"""Local data files: the supported formats, and one function that loads them without changing a value."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .columns import storable

if TYPE_CHECKING:
    from datasets import Dataset


def load_file(path: str | Path) -> Dataset:
    """Load all rows of a local data file.

    Every value of a CSV file is text, also 0023 and an empty field. JSON values keep their types, except in a column
    whose values differ in type: these become text (see `storable`). Text is never read as a number or a date.

    Args:
        path: A file with a suffix of `FILE_FORMATS`. `~` is expanded.

    Raises:
        ValueError: The file has another suffix, does not exist, has no rows, or cannot be parsed. The message is one
            line that begins with the path.
    """
    path = Path(path).expanduser()
    if path.suffix not in FILE_FORMATS:
        raise ValueError(
            f"{str(path)!r} is not a {', '.join(FILE_FORMATS)} file, so it cannot be loaded. Convert it to one of "
            "these formats."
        )
    if not path.is_file():
        raise ValueError(f"{str(path)!r} not found from {Path.cwd()}. Check the path of the file.")
    no_rows = f"{str(path)!r} has zero rows, so there is nothing to load. Give a file with at least one row."
    if path.stat().st_size == 0:
        raise ValueError(no_rows)
    try:
        dataset = FILE_FORMATS[path.suffix](path)
    except Exception as error:  # the readers raise many types of errors
        reason = " ".join(str(error.__cause__ or error).split())[:300].rstrip(".")
        fix = "Save the file as UTF-8" if isinstance(error, UnicodeDecodeError) else "Correct the file, or its suffix"
        raise ValueError(f"{str(path)!r} cannot be read as {path.suffix}: {reason}. {fix}.") from None
    if len(dataset) == 0:
        raise ValueError(no_rows)
    return dataset


def _read_json(path: Path) -> Dataset:
    """Read one JSON object per line, or a list of objects."""
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        rows = _parse_json(text)
    else:
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        rows = [_parse_json(line, f"line {number}: ") for number, line in lines]
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"row {number} is not a JSON object: {str(row)[:80]!r}.")
    if (
        path.suffix == ".json"
        and len(rows) == 1
        and rows[0]
        and all(isinstance(value, list) for value in rows[0].values())
    ):
        raise ValueError(
            f"the file is one object of lists, with the keys {', '.join(rows[0])}. Write one object per row, or a list "
            "of these objects."
        )
    names = dict.fromkeys(name for row in rows for name in row)
    return _dataset({name: [row.get(name) for row in rows] for name in names})


def _parse_json(text: str, where: str = "") -> Any:
    try:
        return json.loads(text, parse_constant=lambda name: None)  # NaN stands for a missing value
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}not JSON: {error}. Write one object per line, or a list of objects.") from None


def _read_csv(path: Path) -> Dataset:
    """Read a table whose first line holds the names of its columns."""
    csv.field_size_limit(2**31 - 1)  # a field may hold a long text
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)  # otherwise a quote without its end would swallow the rows after it
        names = [name.strip() for name in next(reader, [])]
        if len(names) == 1 and re.search("[;\t|]", names[0]):
            raise ValueError(f"the first line has one name, {names[0]!r}. Write commas between the fields.")
        if len(set(names)) < len(names):
            raise ValueError(f"the first line gives two columns the same name: {', '.join(names)}.")
        rows = []
        for row in _lines(reader):
            if len(row) > len(names):
                raise ValueError(f"line {reader.line_num} has {len(row)} fields, but the first has {len(names)} names.")
            rows.append(row + [""] * (len(names) - len(row)))
    return _dataset(dict(zip(names, map(list, zip(*rows, strict=True)), strict=bool(rows))))


def _lines(reader: Any) -> Iterator[list[str]]:
    """The lines of a CSV file that are not blank."""
    start = reader.line_num + 1
    try:
        for row in reader:
            start = reader.line_num + 1
            if row:
                yield row
    except csv.Error as error:
        raise ValueError(f"the row of line {start}: {error}. Close every quote, and double quotes inside.") from None


def _read_parquet(path: Path) -> Dataset:
    from datasets import Dataset
    from pyarrow.parquet import read_metadata

    if not read_metadata(path).num_rows:  # datasets cannot read such a file
        return Dataset.from_dict({})
    return Dataset.from_parquet(str(path))


def _dataset(columns: dict[str, list[Any]]) -> Dataset:
    from datasets import Dataset

    return Dataset.from_dict({name: storable(values) for name, values in columns.items()})


FILE_FORMATS: dict[str, Callable[[Path], Dataset]] = {
    ".jsonl": _read_json,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".csv": _read_csv,
}
