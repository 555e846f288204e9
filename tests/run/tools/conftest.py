"""A model that calls the tool `my_tools.add`, and the module `my_tools` in the working directory."""

import sys

import pytest

import calling


@pytest.fixture(scope="session")
def calling_model(tmp_path_factory):
    """Folder of a tiny model that calls `add` in most completions."""
    return calling.save(tmp_path_factory.mktemp("calling_model"))


@pytest.fixture
def my_tools(tmp_path, monkeypatch):
    """The folder of the module, which is the working directory."""
    (tmp_path / "my_tools.py").write_text(calling.TOOL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_tools", raising=False)
    return tmp_path
