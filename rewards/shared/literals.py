"""Lists and objects that a column holds as text: as JSON, or as Python writes them."""

from __future__ import annotations

import ast
import json
from typing import Any


def read_literal(text: str, **json_options: Any) -> Any:
    """The value of JSON text, or of the text of a Python list or dict, as `str` and the CSV files of pandas write it.

    Args:
        text: The text.
        json_options: Options of `json.loads`.

    Raises:
        ValueError: The text is neither. The message is that of the JSON reader.
        RecursionError: It is nested too deeply.

    >>> read_literal('{"a": [null]}'), read_literal("{'a': [None]}")
    ({'a': [None]}, {'a': [None]})
    """
    try:
        return json.loads(text, **json_options)
    except ValueError as error:
        if not text.lstrip().startswith(("{", "[")):
            raise
        try:
            return ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError):
            raise error from None
