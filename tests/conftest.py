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


@pytest.fixture(scope="session")
def random_model(tmp_path_factory):
    """Folder of a tiny untrained decoder with a character tokenizer."""
    from gbpo.run.tiny import character_tokenizer, tiny_decoder

    folder = tmp_path_factory.mktemp("random_model")
    tokenizer = character_tokenizer()
    tiny_decoder(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
