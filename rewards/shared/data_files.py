"""Local data files: the supported formats, and one function that loads them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset

FILE_FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}  # suffix -> `datasets` loader


def load_file(path: str | Path) -> Dataset:
    """Load all rows of a local data file.

    Args:
        path: A file with a suffix of `FILE_FORMATS`. `~` is expanded.

    Raises:
        ValueError: The file has another suffix, does not exist, has no rows, or cannot be parsed. The message is one
            line that begins with the path.
    """
    import datasets

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
        dataset = datasets.load_dataset(FILE_FORMATS[path.suffix], data_files=str(path), split="train")
    except Exception as error:
        if "corresponds to no data" in str(error):  # the file has a header or blank lines only
            raise ValueError(no_rows) from None
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise ValueError(
            f"{str(path)!r} cannot be read as {path.suffix}: {reason} Correct the file, or its suffix."
        ) from None
    if len(dataset) == 0:
        raise ValueError(no_rows)
    return dataset
