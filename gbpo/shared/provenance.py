"""The code revision and the package versions of a run."""

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def git_revision() -> str | None:
    """Commit of the running code, with `-dirty` if files were changed. None outside a git checkout."""
    result = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--match="],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout.strip() or None


def installed_version(package: str) -> str | None:
    """Version of an installed package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
