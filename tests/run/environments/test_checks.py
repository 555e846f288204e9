"""What the checks before a run accept, refuse and leave behind, with environments that are given as objects."""

import time

import pytest
from datasets import Dataset

from gbpo.run.environments import checks
from gbpo.run.environments.checks import load_episodes
from gbpo.run.recipe.arguments import RunArguments


class Speaking:
    """An environment without tools, which repeats the number of the row."""

    instances = ()

    def __init__(self):
        Speaking.instances = (*Speaking.instances, self)
        self.closed = 0

    def reset(self, number, **row):
        return f"Say {number}."

    def get_reward(self, completion) -> float:
        return 0.0

    def close(self):
        self.closed += 1


@pytest.fixture
def load(monkeypatch):
    """`load(kind)`: the episodes of a class, or of several by their names."""
    monkeypatch.setattr(Speaking, "instances", ())

    def load(kinds, rows=None, eval_set=None, has_rewards=False):
        makes = kinds if isinstance(kinds, dict) else {None: kinds}
        monkeypatch.setattr(checks, "environments", lambda run: makes)
        rows = rows or {"prompt": ["", ""], "number": [1, 2]}
        run = RunArguments(dataset_name="arithmetic", tool_timeout=3.0)
        return load_episodes(run, Dataset.from_dict(rows), eval_set, has_rewards=has_rewards)

    return load


def test_an_environment_without_tools_is_created_twice_and_closed(load):
    (kind,) = load(Speaking).values()
    assert [one.closed for one in Speaking.instances] == [1, 1]
    assert kind._seconds == 3.0
    episode = kind()
    assert episode.reset(number=5) == "Say 5."
    assert [one.closed for one in Speaking.instances] == [1, 1, 0]


def test_reset_does_not_get_the_name_of_the_environment(load):
    class Strict(Speaking):
        def reset(self, prompt, number):
            return f"Say {number}."

    rows = {"prompt": ["", "", ""], "number": [1, 2, 3], "environment": ["other", "strict", "strict"]}
    assert set(load({"strict": Strict, "other": Speaking}, rows)) == {"strict", "other"}


def test_methods_may_be_asynchronous(load):
    class Later(Speaking):
        async def reset(self, number, **row):
            return f"Say {number}."

        async def get_reward(self, completion) -> float:
            return 0.5

    episode = load(Later)[None]()
    assert episode.reset(number=5) == "Say 5." and episode._reward([]) == 0.5


def test_rewards_of_the_recipe_are_enough(load):
    class Silent(Speaking):
        get_reward = property()

        def wait(self) -> str:
            """Wait."""

    with pytest.raises(ValueError, match="has no method get_reward"):
        load(Silent)
    assert not load(Silent, has_rewards=True)[None]._has_reward


def test_every_row_of_the_evaluation_set_names_its_environment(load):
    rows = {"prompt": [""], "number": [1], "environment": ["here"]}
    with pytest.raises(ValueError, match="Row 1 has environment='there'"):
        load({"here": Speaking}, rows, Dataset.from_dict({"environment": ["here", "there"]}))


class Counting(Speaking):
    """Depends on the number of the instance."""

    def reset(self, number, **row):
        return f"Say {number} to {Speaking.instances.index(self)}."


class Changed(Speaking):
    """Depends on whether another row came before."""

    changed = False

    def reset(self, number, **row):
        self.changed = self.changed or number == 2
        return f"Say {number}{'!' * self.changed}"


@pytest.mark.parametrize("kind", [Counting, Changed])
def test_reset_depends_on_the_row_alone(load, kind):
    """One environment differs between its instances, the other after another row."""
    with pytest.raises(ValueError, match=r"reset returns 'Say 1.*' and then 'Say 1.*' for the same row"):
        load(kind)


def test_a_task_is_in_the_last_message_or_comes_from_reset(load):
    class Quiet(Speaking):
        def reset(self, **row):
            return None

    def chat(*contents):
        return [{"role": role, "content": text} for role, text in zip(("system", "user"), contents, strict=True)]

    load(Speaking, {"prompt": [chat("", "")], "number": [1]})
    load(Quiet, {"prompt": [chat("", "Task.")], "number": [1]})
    load(Quiet, {"prompt": ["Task."], "number": [1]})
    with pytest.raises(ValueError, match="the prompt is empty and reset returns None"):
        load(Quiet, {"prompt": [chat("Be brief.", "")], "number": [1]})


def test_an_environment_that_hangs_is_refused(load, monkeypatch):
    class Hanging(Speaking):
        def reset(self, **row):
            time.sleep(1)

    monkeypatch.setattr(checks, "_SECONDS", 0.1)
    with pytest.raises(ValueError, match="reset raised OutOfTimeError no answer after 0.1 seconds"):
        load(Hanging)
