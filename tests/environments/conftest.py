"""A model that acts in environments."""

import pytest

import acting


@pytest.fixture(scope="session")
def acting_model(tmp_path_factory):
    """Folder of a tiny decoder that calls the tools of `code_word` at random."""
    return acting.save(tmp_path_factory.mktemp("acting_model"))
