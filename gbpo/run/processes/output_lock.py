"""A lock on the output folder, so that two runs cannot write to it at the same time."""

from pathlib import Path

from filelock import FileLock, Timeout

from .launcher import LaunchError

_locks: list[FileLock] = []  # a lock is released when its object is freed


def lock_output(folder: Path) -> None:
    """Create `folder` and lock it until this process ends.

    Raises:
        LaunchError: Another running process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise LaunchError(
            f"Another running process writes to output_dir={str(folder)!r}: the two runs would overwrite each other. "
            "Give another folder, or start the processes of one run with torchrun or accelerate launch."
        ) from None
    _locks.append(lock)
