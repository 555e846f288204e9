"""Commands that a reader can type, without the paths of the machine."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path


def short_path(path: str | Path) -> str:
    """A path from the working folder if it is inside. Other paths in the home folder begin with `~`."""
    path = Path(path)
    if not path.is_absolute():
        return str(path)
    if path.is_relative_to(Path.cwd()):
        return os.path.relpath(path)
    return f"~/{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else str(path)


def short_words(words: Sequence[str]) -> list[str]:
    """The words of a command with short paths. `--field=PATH` becomes two words, because shells read no `~` after `=`.

    >>> short_words(["--output_dir=" + str(Path.cwd() / "runs"), "/dev/null", "--seed=1"])
    ['--output_dir', 'runs', '/dev/null', '--seed=1']
    """
    shown: list[str] = []
    for word in words:
        flag, equals, value = word.partition("=")
        if flag.startswith("--") and equals and os.path.isabs(value):
            shown += [flag, short_path(value)]
        else:
            shown.append(short_path(word) if os.path.isabs(word) else word)
    return shown


def as_typed(words: Sequence[str]) -> str:
    """A command as one types it in a shell. A shell reads `~` only outside quotes.

    >>> as_typed(["gbpo", "train", "~/my data/x.yaml"])
    "gbpo train ~/'my data/x.yaml'"
    """
    return " ".join(f"~/{shlex.quote(word[2:])}" if word.startswith("~/") else shlex.quote(word) for word in words)
