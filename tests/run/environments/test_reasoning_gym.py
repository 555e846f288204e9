"""`reasoning_gym:<task>`: the tries, the score and the questions, with a small replacement for the package."""

import sys

import pytest

from gbpo.run.data.loading import load
from gbpo.run.environments.checks import load_episodes
from gbpo.run.recipe.arguments import RunArguments
from rewards.answers.reasoning_gym import _prepare
from rewards.shared.workers import _pools

STAND_IN = '''
class Doubling:
    """Two times the seed. An answer too large by one gets half the reward, and other text raises an error."""

    def __init__(self, size, seed, factor=2):
        self.size, self.seed, self.factor = size, seed, factor

    def __getitem__(self, i):
        return {"question": f"{self.factor}*{self.seed}?", "answer": self.factor * self.seed}

    def score_answer(self, answer, entry):
        return {0: 1.0, 1: 0.5}.get(eval(answer) - entry["answer"], 0.0)


def create_dataset(name, **kwargs):
    if name != "doubling":
        raise ValueError(f"Dataset {name!r} not registered")
    return Doubling(**kwargs)
'''


@pytest.fixture(autouse=True)
def reasoning_gym(tmp_path, monkeypatch):
    """Puts the replacement on the path, which worker processes inherit."""
    (tmp_path / "reasoning_gym").mkdir()
    (tmp_path / "reasoning_gym" / "__init__.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path)
    forget()
    yield
    forget()


def forget():
    sys.modules.pop("reasoning_gym", None)
    for workers in [workers for workers in _pools if workers.prepare is _prepare]:
        workers.close()


@pytest.mark.slow
def test_an_episode_has_several_tries_and_the_reward_of_the_last(monkeypatch):
    run = RunArguments(
        environment="reasoning_gym:doubling", environment_kwargs={"factor": 3, "tries": 2}, tool_timeout=60.0
    )
    train_set, _ = load(run, evaluation=False)
    episode = load_episodes(run, train_set, None, has_rewards=False)[None]()
    assert episode.reset(**train_set[0]) == f"3*{train_set[0]['seed']}?"
    assert episode.reset(prompt="", seed=7) == "3*7?"
    assert episode._reward() == 0.0
    assert episode.submit("22") == "The score is 0.5 of 1. Tries left: 1."
    assert episode._reward() == 0.5
    assert episode.submit("what?") == "The score is 0 of 1. Tries left: 0."
    assert episode.submit("21") == "No tries are left."
    assert episode._reward() == 0.0
    episode.reset(prompt="", seed=7)
    assert (episode.submit(" 21 "), episode._reward()) == ("Correct.", 1.0)
    assert episode.submit("3") == "No tries are left."  # the right answer ends the episode
    episode.reset(prompt="", seed=8)
    monkeypatch.setattr("rewards.answers.reasoning_gym.score", lambda spec, answer: "infra")
    with pytest.raises(Exception, match="the worker process that scores answers failed"):
        episode.submit("24")
    assert episode._reward() is None


def test_an_unknown_task_is_refused():
    run = RunArguments(environment="reasoning_gym:tripling")
    with pytest.raises(
        ValueError, match=r"creating it raised ValueError question 0 .*\(Dataset 'tripling' not registered\)"
    ):
        load_episodes(run, load(run, evaluation=False)[0], None, has_rewards=False)
