"""reasoning-gym tasks: data and scorer, with a small replacement for the optional package."""

import asyncio
import sys
import time

import pytest

from gbpo.run.data.loading import load
from gbpo.run.recipe.arguments import RunArguments
from gbpo.run.rewards import load_rewards, named_rewards
from rewards import get_reward
from rewards.answers.reasoning_gym import _EXPRESSION, ReasoningGym, _answer, _prepare
from rewards.shared.workers import _pools

STAND_IN = '''
class Doubling:
    """Two times a number. An answer too large by one gets half the reward, and other text raises an error."""

    def __init__(self, size, seed, factor=2):
        self.size, self.seed, self.factor = size, seed, factor

    def __getitem__(self, i):
        if i >= self.size:
            raise IndexError(i)
        number = i + 100 * self.seed
        return {"question": f"{self.factor}*{number}?", "answer": self.factor * number}

    def score_answer(self, answer, entry):
        if answer == "loop":
            while True:
                pass
        error = eval(answer) - entry["answer"]
        return {0: 1.0, 1: 0.5}.get(error, 0.0)


def create_dataset(name, **kwargs):
    if name == "doubling":
        return Doubling(**kwargs)
    if name == "parsing":
        from reasoning_gym.parsing import Parsing

        return Parsing(**kwargs)
    if name == "shuffling":
        from reasoning_gym.shuffling import Shuffling

        return Shuffling(**kwargs)
    raise ValueError(f"Dataset {name!r} not registered")
'''
PARSING = """
from sympy import parse_expr


class Parsing:
    def __init__(self, size, seed):
        pass

    def __getitem__(self, i):
        return {"question": "the derivative of sin(x)?", "answer": "cos(x)"}

    def score_answer(self, answer, entry):
        return float(parse_expr(answer) == parse_expr(entry["answer"]))
"""
SHUFFLING = """
import random


class Shuffling:
    def __init__(self, size, seed):
        pass

    def __getitem__(self, i):
        letters = "".join({"a", "b", "c", "d", "e", "f", "g", "h"})  # in the order of this process
        problem = f"({i} + 2) * {random.randint(10, 99)}"
        return {"question": f"{letters} {problem}", "answer": eval(problem), "metadata": {"problems": [problem]}}

    def score_answer(self, answer, entry):
        return float(eval(answer) == eval(entry["metadata"]["problems"][0]))
"""


@pytest.fixture(autouse=True)
def reasoning_gym(tmp_path, monkeypatch):
    """Puts the replacement on the path, which worker processes inherit."""
    package = tmp_path / "reasoning_gym"
    package.mkdir()
    (package / "__init__.py").write_text(STAND_IN)
    (package / "parsing.py").write_text(PARSING)
    (package / "shuffling.py").write_text(SHUFFLING)
    monkeypatch.syspath_prepend(tmp_path)
    forget()
    yield
    forget()


def forget():
    for name in [name for name in sys.modules if name.split(".")[0] == "reasoning_gym"]:
        del sys.modules[name]
    for workers in [workers for workers in _pools if workers.prepare is _prepare]:
        workers.close()


def grade(reward, completions, **columns):
    return asyncio.run(reward(completions, **columns))


def test_the_scorer_reads_the_tag_or_the_first_line():
    reward = ReasoningGym("doubling", size=5, seed=1)
    completions = ["206", " 206\n7", "7\n206", "so <answer>7</answer> <answer> 206 </answer>", "207", "junk", "", "206"]
    assert grade(reward, completions, index=[3] * 7 + [None]) == [1.0, 1.0, 0.0, 1.0, 0.5, 0.0, 0.0, None]
    assert grade(reward, [[{"role": "assistant", "content": "206"}]], index=[3]) == [1.0]


def test_an_answer_is_not_run_as_code_and_cannot_hang(tmp_path, monkeypatch):
    monkeypatch.setattr("rewards.answers.reasoning_gym.HARD_LIMIT", 2.0)
    marks = [tmp_path / name for name in ("evaluated", "parsed")]
    code = [f"__import__('pathlib').Path({str(mark)!r}).touch() or 206" for mark in marks]
    columns = {}
    completions = [code[0], "loop", "100+106", "206"]
    rewards = grade(ReasoningGym("doubling", size=5, seed=1), completions, index=[3] * 4, log_extra=columns.__setitem__)
    assert rewards == [0.0, 0.0, 0.0, 1.0]
    assert columns == {"reasoning_gym/status": ["unparsed", "timeout", "unparsed", "ok"]}
    parsing = ReasoningGym("parsing", size=5, seed=1)
    assert grade(parsing, [code[1], "cos(x)", "sin(x)", "open(x)"], index=[0] * 4) == [0.0, 1.0, 0.0, 0.0]
    assert not any(mark.exists() for mark in marks)


def test_code_of_the_task_itself_is_run():
    """Tasks such as bitwise_arithmetic make their questions with `eval`. The problem is no answer to itself."""
    train, _ = load(RunArguments(dataset_name="reasoning_gym:shuffling", dataset_kwargs={"size": 3}), evaluation=False)
    reward = ReasoningGym("shuffling", size=3)
    assert grade(reward, train["solution"], index=train["index"]) == [1.0] * 3
    problems = [prompt.partition(" ")[2] for prompt in train["prompt"]]
    assert grade(reward, problems, index=train["index"]) == [0.0] * 3


def test_questions_are_the_same_in_all_processes(monkeypatch):
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    run = RunArguments(dataset_name="reasoning_gym:shuffling", dataset_kwargs={"size": 20})
    prompts = load(run, evaluation=False)[0]["prompt"][:]
    forget()  # other workers
    assert load(run, evaluation=False)[0]["prompt"][:] == prompts
    assert len({prompt.split()[-1] for prompt in prompts}) > 1


def test_tags_that_are_never_closed_take_no_time():
    start = time.perf_counter()
    assert _answer("<answer>7</answer>" + "<answer>" * 20_000) == "7"
    assert time.perf_counter() - start < 5.0  # a search from each tag took a minute


@pytest.mark.parametrize("answer", ["8x^4 - 24x^3 + x", "x**2/2 + C", "(1+2)*3.5/.5", "exp(2*x)*sin(x)", "sqrt(2)*pi"])
def test_plain_expressions_may_be_parsed(answer):
    assert _EXPRESSION.fullmatch(answer)


@pytest.mark.parametrize(
    "answer", ["open('x')", "eval(x)", "x.real", "a[0]", "x_1", "lambda: x", "exit()", "x\n1", "'a'"]
)
def test_other_python_code_may_not_be_parsed(answer):
    assert not _EXPRESSION.fullmatch(answer)


def test_the_default_reward_of_a_task_uses_the_same_questions():
    run = RunArguments(dataset_name="reasoning_gym:doubling", dataset_kwargs={"size": 6, "seed": 2, "factor": 3})
    train, evaluation = load(run, evaluation=True)
    assert train["prompt"][4] == "3*204?" and train["solution"][4] == "612"
    assert evaluation["prompt"][4] == "3*210?"
    (reward,) = load_rewards(run, train, 256)
    assert grade(reward, train["solution"], index=train["index"]) == [1.0] * 6
    assert grade(reward, evaluation["solution"], index=evaluation["index"]) == [1.0] * 6


def test_a_named_reward_uses_the_same_questions_too():
    """Beside other rewards; an option that the recipe gives wins."""
    task = {"size": 6, "seed": 2, "factor": 3}
    run = RunArguments(
        dataset_name="reasoning_gym:doubling",
        dataset_kwargs=task,
        reward_funcs=["exact_match", "reasoning_gym"],
        reward_kwargs={"reasoning_gym": {"factor": 4}},
    )
    assert named_rewards(run)["reasoning_gym"] == {"task": "doubling", **task, "factor": 4}
    train, _ = load(run, evaluation=False)
    _, reward = load_rewards(run, train, 256)
    assert grade(reward, train["solution"], index=train["index"]) == [0.0] * 6
    run.reward_kwargs = {}
    _, reward = load_rewards(run, train, 256)
    assert grade(reward, train["solution"], index=train["index"]) == [1.0] * 6


def test_errors_name_unknown_tasks_and_arguments():
    for name, kwargs, word in (("tripling", {}, "tripling"), ("doubling", {"faktor": 3}, "faktor")):
        with pytest.raises(ValueError, match=word):
            load(RunArguments(dataset_name=f"reasoning_gym:{name}", dataset_kwargs=kwargs), evaluation=False)
        with pytest.raises(ValueError, match=f"no answer could be scored: .*{word}"):
            get_reward("reasoning_gym", task=name, **kwargs)
    with pytest.raises(ValueError, match=r"Its options: task, size, seed\.$"):
        get_reward("reasoning_gym")


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ImportError, match="^dataset_name='reasoning_gym:doubling' needs .*: pip install reasoning-gym"):
        load(RunArguments(dataset_name="reasoning_gym:doubling"), evaluation=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install reasoning-gym"):
        ReasoningGym("doubling")
