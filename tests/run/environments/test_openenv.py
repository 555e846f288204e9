"""What an OpenEnv server describes becomes methods, and what it observes becomes text."""

from types import SimpleNamespace

import pytest
from transformers.utils import get_json_schema

from gbpo.run.environments.episode import tool_methods
from gbpo.run.environments.openenv import Session, _call, _text, method_of

FIELDS = {
    "limit": {"type": "integer", "default": 3, "description": "At most this many."},
    "query": {"type": "string"},
    "order": {"enum": ["old", "new"], "default": "new"},
}


class Client:
    began = SimpleNamespace(observation={"text": "begin", "done": False}, reward=None, done=False)

    def __init__(self):
        self.seen, self.closed = [], 0

    def reset(self, **arguments):
        self.seen.append(arguments)
        return self.began

    def step(self, action):
        self.seen.append(action)
        return SimpleNamespace(observation={"result": "found"}, reward=0.5, done=len(self.seen) == 3)

    def close(self):
        self.closed += 1


@pytest.fixture
def session():
    method = method_of("search", "Look for\n  pages.", {"properties": FIELDS, "required": ["query"]}, _call)
    made = type("OpenEnv", (Session,), {"_url": "http://nowhere", "search": method})()
    made._client = Client()
    return made


def test_a_tool_is_described_as_the_server_describes_it(session):
    assert list(tool_methods(session)) == ["search"]
    described = get_json_schema(session.search)["function"]
    assert (described["name"], described["description"]) == ("search", "Look for pages.")
    assert described["parameters"]["required"] == ["query"]
    given = described["parameters"]["properties"]
    assert given["limit"] == {"type": "integer", "description": "At most this many."}
    assert given["query"]["type"] == "string" and given["order"]["enum"] == ["old", "new"]


def test_an_episode_sums_the_rewards_of_its_steps(session):
    assert session.reset(prompt=[{"role": "user", "content": ""}], seed=4) == "begin"
    assert session.search(query="cats", order="old") == "found"
    assert (session.search("dogs"), session.get_reward()) == ("found", 1.0)
    call = {"type": "call_tool", "tool_name": "search"}
    assert session._client.seen == [
        {"seed": 4},
        call | {"arguments": {"query": "cats", "order": "old"}},
        call | {"arguments": {"query": "dogs"}},  # the server adds its defaults
    ]
    assert session.search("more") == "The episode is over." and len(session._client.seen) == 3
    with pytest.raises(TypeError, match="missing a required argument: 'query'"):
        session._done = False
        session.search()


def test_a_reset_may_give_a_reward_and_end_the_episode(session):
    session._client.began = SimpleNamespace(observation={"text": "won"}, reward=0.25, done=True)
    for seed in (1, 2):  # the reward of an episode is not added to that of the next
        assert (session.reset(prompt="", seed=seed), session.get_reward()) == ("won", 0.25)
        assert (session.search("cats"), session.get_reward()) == ("The episode is over.", 0.25)
    assert session._client.seen == [{"seed": 1}, {"seed": 2}]


def test_a_session_is_given_back(session):
    session.close()
    assert session._client.closed == 1
    type(session)().close()  # a session that never began


@pytest.mark.parametrize(
    ("observation", "text"),
    [
        ("plain", "plain"),
        ({"text": "plain", "done": False, "reward": 1.0, "metadata": {}}, "plain"),
        ({"board": [1, 2], "turn": "x", "reward": 0}, '{"board": [1, 2], "turn": "x"}'),
        ({"position": 7}, "7"),
        ({"tool_name": "ask", "result": {"data": "a", "content": [{"type": "text", "text": "b"}]}}, "a"),
        ({"tool_name": "ask", "result": {"content": [{"type": "text", "text": "b"}, {"text": "c"}]}}, "b\nc"),
        ({"error": {"message": "no such tool"}}, "error: no such tool"),
    ],
)
def test_the_text_of_an_observation(observation, text):
    assert _text(observation) == text
