"""Read the printed output of a run: its last lines, and why it ended."""

from __future__ import annotations

import re
from pathlib import Path

_PROGRESS = re.compile(r"^.*\d+%\|.*?\| \d+/\d+ \[[^\]]*\]")
_END = re.compile(r"(?:gbpo|evals)[.\w]*: (?:error: (.*)|ended at (.*?); last checkpoint)")


def last_lines(log: Path, count: int) -> list[str]:
    """The last lines of a log, without blank lines and progress bars. The first line, the command, is left out."""
    text = log.read_text(errors="replace") if log.is_file() else ""
    lines = [_PROGRESS.sub("", line.rsplit("\r", 1)[-1]).rstrip() for line in text.splitlines()[1:]]
    return [line for line in lines if line][-count:]


def failure_reason(log: Path, status: int) -> str:
    """Why a process failed, in one line: its last error message, or else its last line."""
    lines = last_lines(log, 200)
    messages = [match[1] or match[2] for line in lines if (match := _END.search(line))]
    return f"exit status {status}: {(messages or lines or ['no output'])[-1][:400]}"
