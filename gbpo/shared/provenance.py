"""What code a run was made with."""

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def git_revision() -> str | None:
    """Commit of the code that runs, with `-dirty` when it was changed; None outside a checkout."""
    result = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--match="],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout.strip() or None


def installed_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
