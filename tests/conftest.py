"""Fixtures shared by the whole suite: everything is made here, offline and on the CPU."""

import os

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    DO_NOT_TRACK="1",
    TRL_EXPERIMENTAL_SILENCE="1",
    TOKENIZERS_PARALLELISM="false",
)
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

# the files that take longest come first, so that no worker is left alone with one at the end
LONG = ("test_run.py", "test_step.py", "test_voting.py", "test_recipes.py", "test_math.py", "test_hostile.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="session")
def random_model(tmp_path_factory):
    """Folder of a tiny untrained decoder with a character tokenizer."""
    from gbpo.run.tiny import character_tokenizer, tiny_decoder

    folder = tmp_path_factory.mktemp("random_model")
    tokenizer = character_tokenizer()
    tiny_decoder(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
