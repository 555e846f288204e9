"""Proposes the word that a user meant."""

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that is most similar to `word`. Words that begin with `word` come first."""
    known = list(known)
    longer = [name for name in known if name.startswith(word)]
    return difflib.get_close_matches(word, longer or known, n=1, cutoff=0.0)[0]
