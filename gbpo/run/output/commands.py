"""The commands that a run tells its reader."""

from collections.abc import Sequence
from pathlib import Path


def continued(words: Sequence[str], output: Path) -> list[str]:
    """The words of a command that started a run, with flags to continue in its output folder.

    >>> continued(["gbpo", "train", "mine.yaml", "--output_dir=a"], Path("a"))[3:]
    ['--output_dir', 'a', '--resume_from_checkpoint', 'auto']
    """
    flags = {"--output_dir": str(output), "--resume_from_checkpoint": "auto"}
    kept = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if before not in flags and word.split("=")[0] not in flags
    ]
    return [*kept, *(word for flag in flags.items() for word in flag)]
