"""Reference answers that are no answers yet: solutions and lists, from which the answer must be extracted."""

from __future__ import annotations

import json

from .boxed import last_boxed


def extraction_hint(reference: str) -> str | None:
    """What to write so that the answer is extracted from a reference text; None if the text may be the answer.

    >>> extraction_hint("26+28=54 #### 54")
    'a whole solution; write dataset_extract: {solution: after ####}'
    """
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
