"""A model that answers `\\boxed{digit}`, problems whose answers are digits, and the launch command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import acting
import boxing

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def boxing_model(tmp_path_factory):
    """Folder of a tiny decoder that ends every chat with a random digit in a box, so that maths rewards vary."""
    return boxing.save(tmp_path_factory.mktemp("boxing_model"))


@pytest.fixture(scope="session")
def acting_model(tmp_path_factory):
    """Folder of a tiny decoder that calls the tools of the environment `code_word` at random."""
    return acting.save(tmp_path_factory.mktemp("acting_model"))


@pytest.fixture(scope="session")
def problems(tmp_path_factory):
    """A JSONL file like maths data sets: `problem`, `answer`, and an unused column."""
    return boxing.save_problems(tmp_path_factory.mktemp("data") / "problems.jsonl")


@pytest.fixture
def launch(tmp_path):
    """`launch(recipe, *flags)` runs launch/gbpo.py from another directory; `launcher` puts words before it."""

    def run(recipe, *flags, launcher=(sys.executable,), cwd=tmp_path, timeout=900):
        command = [*launcher, str(ROOT / "launch" / "gbpo.py"), str(recipe), *map(str, flags)]
        # a new user has no PYTHONPATH
        env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout, check=False)

    return run


@pytest.fixture
def refused(monkeypatch, capsys, tmp_path):
    """`refused(argv, words, builtin=None)`: a recipe ends with status 2 and one line that contains the words.

    No model is loaded, and nothing is written to the working directory. `builtin` is the folder that takes the place of
    a builtin model, for errors that need a model; without it none may be built.
    """
    from gbpo.run import train

    monkeypatch.chdir(tmp_path)

    def load(*args, **kwargs):
        raise AssertionError("a model was about to be built or loaded")

    def check(argv, words, builtin=None):
        monkeypatch.setattr(train, "train", load)
        monkeypatch.setattr(
            train.catalogue, "local_model", lambda name: (builtin or load()) if name.startswith("builtin:") else name
        )
        before = contents()
        with pytest.raises(SystemExit) as stop:
            train.main(list(argv))
        assert stop.value.code == 2
        printed = capsys.readouterr().err.strip()
        assert printed.startswith("gbpo: error: ") and "\n" not in printed, printed
        for word in words:
            assert word in printed, printed
        assert contents() == before

    return check


def contents():
    """What the working directory holds."""
    paths = (path for path in Path.cwd().rglob("*") if "__pycache__" not in path.parts)
    return {path: path.read_bytes() if path.is_file() else None for path in paths}
