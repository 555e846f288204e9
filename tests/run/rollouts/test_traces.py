"""Conversations as traces of trackio. A stand-in takes the place of the package, which tests do not install."""

import sys
from types import SimpleNamespace

import pytest

from gbpo.run.rollouts.traces import log_traces


@pytest.fixture
def logged(monkeypatch):
    """What was logged with a stand-in that has the two names that are used."""
    calls = []
    stand_in = SimpleNamespace(
        Trace=lambda messages, metadata: (messages, metadata),
        log=lambda metrics, step: calls.append((metrics, step)),
    )
    monkeypatch.setitem(sys.modules, "trackio", stand_in)
    return calls


def test_traces_are_conversations_with_their_rewards(made_up, logged):
    log_traces(made_up(3, (7, 8), groups=5, size=4))
    (metrics, step), *others = logged
    assert others == [] and step == 8 and list(metrics) == ["rollouts"] and len(metrics["rollouts"]) == 16
    messages, metadata = metrics["rollouts"][5]  # the second completion of the second group
    assert messages == [{"role": "user", "content": "1+1="}, {"role": "assistant", "content": "11"}]
    assert metadata["generation"] == 3 and metadata["reward"] == 0.0 and metadata["advantage"] == -0.5
    assert metadata["statuses"] == {"exact_match/status": "wrong"}


def test_an_older_trackio_gets_no_traces(made_up, logged, monkeypatch):
    monkeypatch.delattr(sys.modules["trackio"], "Trace")
    log_traces(made_up(0, (1, 2)))
    assert logged == []
