"""reasoning-gym tasks: data and scorer, on a stand-in for the optional package."""

import sys
from types import SimpleNamespace

import pytest

from gbpo.run import data
from gbpo.run.recipe import RunArguments
from gbpo.run.train import load_rewards
from rewards.reasoning_gym import ReasoningGym


class Doubling:
    """Two times a number; half credit for a number too large by one; raises on what is no number, as some do."""

    def __init__(self, size, seed, factor=2):
        self.size, self.seed, self.factor = size, seed, factor

    def __getitem__(self, i):
        if i >= self.size:
            raise IndexError(i)
        number = i + 100 * self.seed
        return {"question": f"{self.factor}*{number}?", "answer": self.factor * number}

    def score_answer(self, answer, entry):
        error = int(answer) - entry["answer"]
        return {0: 1.0, 1: 0.5}.get(error, 0.0)


@pytest.fixture(autouse=True)
def reasoning_gym(monkeypatch):
    def create_dataset(name, **kwargs):
        if name != "doubling":
            raise ValueError(f"Dataset {name!r} not registered")
        return Doubling(**kwargs)

    monkeypatch.setitem(sys.modules, "reasoning_gym", SimpleNamespace(create_dataset=create_dataset))


def test_the_scorer_reads_the_tag_or_the_first_line():
    reward = ReasoningGym("doubling", size=5, seed=1)
    completions = ["206", " 206\n7", "7\n206", "so <answer>7</answer> <answer> 206 </answer>", "207", "junk", "", "206"]
    assert reward(completions, index=[3] * 7 + [None]) == [1.0, 1.0, 0.0, 1.0, 0.5, 0.0, 0.0, None]
    assert reward([[{"role": "assistant", "content": "206"}]], index=[3]) == [1.0]


def test_the_task_brings_its_reward_with_the_same_questions():
    run = RunArguments(dataset_name="reasoning_gym:doubling", dataset_kwargs={"size": 6, "seed": 2, "factor": 3})
    train, evaluation = data.load(run, evaluation=True)
    assert train["prompt"][4] == "3*204?" and train["solution"][4] == "612"
    assert evaluation["prompt"][4] == "3*304?"
    (reward,) = load_rewards(run, train)
    assert reward(train["solution"], index=train["index"]) == [1.0] * 6


def test_wrong_tasks_and_arguments_are_explained():
    for name, kwargs, word in (("tripling", {}, "tripling"), ("doubling", {"faktor": 3}, "faktor")):
        with pytest.raises(ValueError, match=word):
            data.load(RunArguments(dataset_name=f"reasoning_gym:{name}", dataset_kwargs=kwargs), evaluation=False)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ValueError, match="pip install reasoning-gym"):
        data.load(RunArguments(dataset_name="reasoning_gym:doubling"), evaluation=False)
    with pytest.raises(ImportError, match="pip install reasoning-gym"):
        ReasoningGym("doubling")
