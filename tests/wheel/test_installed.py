"""The wheel and the source distribution, installed with pip in a new environment: `make test-wheel`."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from wheel_use import train_compare_report

ROOT = Path(__file__).parents[2]
TWINE = "twine==7.0.0"
CONSTRAINTS = str(ROOT / "constraints.txt")


def call(*words, cwd):
    """Run a command without the checkout on the path, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder():
    """A folder that is deleted at the end: the environment has 1.5 GB."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(scope="module")
def distributions(folder):
    """The source distribution, and the wheel that is built from it."""
    call(sys.executable, "-m", "build", "--outdir", folder / "dist", ROOT, cwd=folder)
    return sorted((folder / "dist").iterdir())


@pytest.fixture(scope="module")
def programs(folder, distributions):
    """The folder of programs of a new environment with the wheel and the extra `evals`."""
    (wheel,) = (path for path in distributions if path.suffix == ".whl")
    call(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    pip = [folder / "venv" / "bin" / "pip", "install", "--quiet", "--constraint", CONSTRAINTS]
    call(*pip, "torch", cwd=folder)  # alone, so that pip keeps the build that the package index offers here
    call(*pip, f"{wheel}[evals]", cwd=folder)
    return folder / "venv" / "bin"


def test_the_metadata_can_be_published(folder, distributions):
    assert [path.suffix for path in distributions] == [".whl", ".gz"]
    call(sys.executable, "-m", "venv", folder / "twine", cwd=folder)  # of its own, because twine needs many packages
    call(folder / "twine" / "bin" / "pip", "install", "--quiet", TWINE, cwd=folder)
    call(folder / "twine" / "bin" / "twine", "check", "--strict", *distributions, cwd=folder)


def test_the_installed_packages_fit_together(folder, programs):
    call(programs / "pip", "check", cwd=folder)


def test_the_installed_command_trains_compares_and_reports(folder, programs):
    work = folder / "work"
    work.mkdir()
    train_compare_report(lambda *words: call(programs / "gbpo", *words, cwd=work), work)


def test_the_installed_command_names_the_wheel_and_not_the_checkout(folder, programs):
    printed = call(programs / "gbpo", "recipes", cwd=folder) + call(programs / "gbpo", "completion", "bash", cwd=folder)
    assert str(folder) in printed and str(ROOT) not in printed and "--target_baseline" in printed
    install = "from gbpo.shared.packages import install_command; print(install_command('vllm'))"
    assert call(programs / "python", "-c", install, cwd=folder) == "pip install 'gbpo[vllm]'\n"
