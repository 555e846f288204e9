"""A tiny model that writes calls, and the replacement for reasoning-gym."""

import pytest


@pytest.fixture(scope="session")
def calling_model(tmp_path_factory):
    """Folder of a tiny decoder that was trained for a few steps on episodes of `code_word`."""
    from gbpo.run.models import agent, tool_chat

    folder = tmp_path_factory.mktemp("calling_model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tool_chat, "START_REWARD", 1e-4)
        patch.setattr(agent, "EPISODES", 256)
        agent.build(folder)
    return str(folder)
