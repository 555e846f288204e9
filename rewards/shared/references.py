"""Reference answers that are no answers yet: solutions and lists, from which the answer must be extracted."""

from __future__ import annotations

import json
from typing import Any

from .batch import reference_text
from .boxed import last_boxed


def extraction_hint(reference: Any) -> str | None:
    """What to write so that the answer is extracted from a reference; None if the reference may be the answer.

    >>> extraction_hint("26+28=54 #### 54")
    'a whole solution; write dataset_extract: {solution: after ####}'
    >>> extraction_hint({"style": "rule", "answer": "54"})
    'an object with the keys style, answer; name one of them, such as dataset_columns: {COLUMN.style: solution}'
    """
    if isinstance(reference, dict) and reference:
        key = next(iter(reference))
        return (
            f"an object with the keys {', '.join(reference)}; name one of them, such as dataset_columns: "
            f"{{COLUMN.{key}: solution}}"
        )
    if isinstance(reference, list) and len(reference) == 1:
        return "a list with one value; write dataset_extract: {solution: json list}"
    if isinstance(reference, list) and reference:
        return f"a list of {len(reference)} values; name one, such as dataset_columns: {{COLUMN.0: solution}}"
    reference = reference_text(reference)
    if "####" in reference:
        return "a whole solution; write dataset_extract: {solution: after ####}"
    if last_boxed(reference) is not None:
        return "a solution with a box; write dataset_extract: {solution: last box}"
    if reference.startswith('["'):
        try:
            if len(json.loads(reference)) == 1:
                return "a list with one text; write dataset_extract: {solution: json list}"
        except ValueError:
            pass
    return None
