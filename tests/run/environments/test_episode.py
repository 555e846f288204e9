"""An episode: what breaks it, what is only an answer to the model, and how its reward is found and counted."""

import copy
import inspect
import time

import pytest
from transformers.utils import get_json_schema

from gbpo.run.environments import episode as episode_module
from gbpo.run.environments.episode import (
    EnvironmentReward,
    close,
    episodes_of,
    reads_completion,
    rewards_of,
    tool_methods,
)


class Lock:
    """Opens with the number of the row. `force` does what its argument says."""

    made = 0

    def __init__(self):
        type(self).made += 1

    def reset(self, number: int, **row):
        self.number, self.opened, self.value = number, False, 0.0
        if number < 0:
            raise KeyError("no such lock")
        return f"Lock {number}."

    def turn(self, number: int) -> str:
        """
        Turn the lock.

        Args:
            number: The number.

        Returns:
            Whether it opened.
        """
        self.opened |= number == self.number
        self.value = float(self.opened)
        return "open" if self.opened else "closed"

    def force(self, way: str) -> str:
        """
        Force the lock.

        Args:
            way: How.
        """
        match way:
            case "hang":
                time.sleep(5)
            case "lost":
                raise ConnectionResetError("the server is gone")
            case "wrong":
                raise ValueError("x" * 1000)
            case _:
                self.value = way
        return "forced"

    async def wait(self) -> str:
        """Wait for a while."""
        return "waited"

    def get_reward(self):
        if self.value == "raise":
            raise ZeroDivisionError
        return self.value


@pytest.fixture
def episode():
    return episodes_of("lock", Lock, Lock(), seconds=0.5)()


def test_the_tools_are_described_as_the_environment_describes_them(episode):
    assert set(tool_methods(Lock())) == {"turn", "force", "wait"}
    members = {name for name, _ in inspect.getmembers(type(episode), inspect.isfunction) if not name.startswith("_")}
    assert members == {"reset", "turn", "force", "wait"}  # TRL gives all but reset to the model
    assert get_json_schema(episode.turn) == get_json_schema(Lock().turn)
    assert type(episode).__name__ == "Lock"


def test_an_episode_with_a_reward(episode):
    assert episode.reset(number=3, unused=1) == "Lock 3."
    assert (episode.turn(number=2), episode._reward()) == ("closed", 0.0)
    assert (episode.turn(number=3), episode._reward()) == ("open", 1.0)
    assert episode.wait() == "waited" and episode.number == 3
    episode.reset(number=4)
    assert episode._reward() == 0.0


def test_a_wrong_call_is_an_answer_to_the_model(episode):
    episode.reset(number=3)
    with pytest.raises(Exception, match="missing 1 required positional argument"):
        episode.turn()
    with pytest.raises(Exception, match="ValueError: x+") as raised:
        episode.force("wrong")
    assert len(str(raised.value)) <= 200
    episode.turn(number=3)
    assert episode._reward() == 1.0


@pytest.mark.parametrize(
    ("way", "failure"),
    [
        ("hang", "force: no answer after 0.5 seconds"),
        ("lost", "force: ConnectionResetError: the server is gone"),
        ("raise", "get_reward raised ZeroDivisionError"),
        ("text", "get_reward raised TypeError must be real number, not str"),
        (float("inf"), "get_reward raised ValueError inf is not finite"),
    ],
)
def test_a_broken_episode_has_no_reward_and_the_next_begins_with_a_new_environment(episode, way, failure):
    episode.reset(number=3)
    before = Lock.made
    try:
        assert episode.force(way) == "forced"
    except Exception as error:
        with pytest.raises(RuntimeError, match="does not answer any more") as raised:
            episode.turn(number=3)
        assert str(error) in str(raised.value)
    assert episode._reward() is None
    assert episode._failure.startswith(failure)
    assert Lock.made == before
    assert episode.reset(number=3) == "Lock 3."
    assert (Lock.made, episode._failure, episode._reward()) == (before + 1, None, 0.0)


def test_a_reset_that_fails_breaks_the_episode(episode):
    assert episode.reset(number=-1) is None
    assert episode._failure == "reset raised KeyError 'no such lock'"
    assert episode._reward() is None


def test_the_reward_is_none_for_other_environments_and_counts_broken_episodes():
    lock, door = (episodes_of(name, Lock, Lock(), seconds=0.5) for name in ("lock", "door"))
    batch = [lock(), door(), lock(), lock()]
    for one, number in zip(batch, (1, 2, -1, 4), strict=True):
        one.reset(number=number)
    batch[0].turn(number=1)
    logged, columns = {}, {}
    (reward, other) = rewards_of({"lock": lock, "door": door})
    values = reward([""] * 4, environments=batch, log_metric=logged.__setitem__, log_extra=columns.__setitem__)
    assert values == [1.0, None, None, 0.0]
    assert other([""] * 4, environments=batch) == [None, 0.0, None, None]
    assert logged == {"rewards/lock/broken": 0.25}
    assert columns == {"lock/status": ["ok", "", "broken: reset raised KeyError 'no such lock'", "ok"]}


def test_a_batch_of_broken_episodes_ends_the_run():
    lock = episodes_of("lock", Lock, Lock(), seconds=0.5)
    batch = [lock(), lock()]
    for one in batch:
        one.reset(number=-1)
    with pytest.raises(RuntimeError, match="All 2 episodes of this batch are broken, the first because reset raised"):
        EnvironmentReward("lock")(["", ""], environments=batch)


def test_a_batch_of_two_environments_ends_the_run_only_if_both_are_broken():
    kinds = [episodes_of(name, Lock, Lock(), seconds=0.5) for name in ("lock", "door")]
    batch = [kind() for kind in kinds]
    for one, number in zip(batch, (-1, 2), strict=True):
        one.reset(number=number)
    rewards = rewards_of(dict(zip(("lock", "door"), kinds, strict=True)))
    assert [reward(["", ""], environments=batch) for reward in rewards] == [[None, None], [None, 0.0]]
    batch[1].reset(number=-1)
    for reward in rewards:
        with pytest.raises(RuntimeError, match="All 2 episodes of this batch are broken"):
            reward(["", ""], environments=batch)


def test_an_environment_without_a_reward_has_none():
    class Silent:
        def reset(self, **row):
            return "Task."

    assert rewards_of({None: episodes_of("Silent", Silent, Silent(), 1.0)}) == []


class Echo:
    """An environment without tools, whose reward is the length of the reply."""

    def reset(self, **row):
        return "Speak."

    async def get_reward(self, completion):
        return len(completion[-1]["content"])


def test_get_reward_reads_the_completion_of_its_own_episode():
    kind = episodes_of("Echo", Echo, Echo(), 1.0)
    batch = [kind(), kind()]
    for episode in batch:
        episode.reset(prompt="")
    completions = [[{"role": "assistant", "content": text}] for text in ("four", "sixsix")]
    assert rewards_of({None: kind})[0](completions, environments=batch) == [4.0, 6.0]
    assert reads_completion(Echo()) and not reads_completion(Lock())


class Slow:
    """Sleeps in the method that `slow` names. Its methods besides `get_reward` are coroutines."""

    slow, value, closed = "", None, 0

    def __init__(self):
        self._sleep("create")

    def _sleep(self, method):
        if Slow.slow == method:
            time.sleep(1)

    async def reset(self, **row):
        self._sleep("reset")
        return "Task."

    def get_reward(self):
        self._sleep("get_reward")
        return self.value

    async def close(self):
        Slow.closed += 1
        self._sleep("close")

    def __deepcopy__(self, memo):
        return "copy"


@pytest.fixture
def slow(monkeypatch):
    """A new episode of `Slow`, with time limits of 0.1 seconds."""
    for name in ("slow", "closed"):
        monkeypatch.setattr(Slow, name, getattr(Slow, name))
    monkeypatch.setattr(episode_module, "_CLOSING", 0.1)
    return episodes_of("Slow", Slow, Slow(), 0.1)()


@pytest.mark.parametrize("method", ["create", "reset", "get_reward"])
def test_a_method_that_takes_too_long_breaks_the_episode(slow, method):
    Slow.slow = method
    began = time.monotonic()
    assert slow.reset() == ("Task." if method == "get_reward" else None)
    assert slow._reward() is None
    assert time.monotonic() - began < 0.9
    name = "get_reward" if method == "get_reward" else "reset"
    assert slow._failure == f"{name} raised OutOfTimeError no answer after 0.1 seconds"


@pytest.mark.parametrize(("value", "expected"), [(None, None), (1, 1.0), (True, 1.0)])
def test_a_reward_is_a_float_or_none(slow, value, expected):
    slow.reset()
    slow._environment.value = value
    reward = slow._reward()
    assert reward == expected and type(reward) is type(expected)
    assert slow._failure is None


def test_a_broken_environment_is_closed(slow):
    slow.reset()
    slow._environment.value = "text"
    assert slow._reward() is None and Slow.closed == 0
    slow.reset()
    assert Slow.closed == 1
    slow.reset()
    assert Slow.closed == 1


def test_closing_takes_a_while_at_most_and_may_fail(slow):
    environment, Slow.slow = Slow(), "close"
    began = time.monotonic()
    close(environment)
    assert Slow.closed == 1
    assert time.monotonic() - began < 0.9
    failing = type("Failing", (), {"close": lambda self: 1 / 0})
    close(failing())


def test_a_failure_is_one_short_line(episode):
    episode.reset(number=3)

    def failing(**row):
        raise ValueError("x\ny" + "z" * 1000)

    episode._environment.reset = failing
    assert episode.reset(number=3) is None
    assert "\n" not in episode._failure and len(episode._failure) <= len("reset raised ") + 200


def test_special_methods_are_those_of_the_episode(slow):
    slow.reset()
    assert type(copy.copy(slow)) is type(slow)
    assert type(copy.deepcopy(slow)) is type(slow)


def test_no_reward_reads_no_completion():
    assert not reads_completion(object())
