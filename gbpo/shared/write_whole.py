"""Writes files completely or not at all, even if the process is killed or the disk is full."""

import os
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name beside `path`, then rename it.

    Args:
        path: The file to write or replace. Its folder must exist.
        content: Bytes, or text to encode as UTF-8.

    Raises:
        OSError: The file could not be written. `path` is unchanged and no temporary file is left.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
