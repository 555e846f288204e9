"""The reward `reasoning_gym`: the scorers of reasoning-gym's procedural tasks.

Some scorers call `eval` on the answer, directly or through sympy's parser. Here `eval` reads only literals in answers,
and scorers that use sympy get only plain expressions. Each answer is scored in a worker process that can be killed.

The workers also make the questions. Some tasks choose at random from a set of text, whose order differs between
processes, or without a seed. All workers have the same hash seed, and every question has its own random seed, so that
a question is the same in the data set, in the score, on all ranks and after a resume.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import json
import os
import random
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..shared.batch import Completion, completion_text, report
from ..shared.concurrency import run_in_thread
from ..shared.workers import Workers

HARD_LIMIT = 8.0  # seconds for one answer
MEMORY_MB = 1024  # of each worker, in addition to its imports

_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
# Numbers, operators, one-letter names and a few functions. None of these can reach Python code.
_FUNCTIONS = "sqrt|exp|log|ln|a?sinh?|a?cosh?|a?tanh?|sec|csc|cot|pi|Abs"
_EXPRESSION = re.compile(
    rf"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+|[-+*/^()=, ]|(?<![A-Za-z])(?:[A-Za-z]|{_FUNCTIONS})(?![A-Za-z]))*"
)


class ReasoningGym:
    """The score that the task's own scorer gives each completion, in [0, 1]. Some tasks give partial credit.

    The answer is the content of the last `<answer>…</answer>`, or the first line that is not blank.

    Args:
        task: Name of the task, for example `"lcm"`.
        size: Number of questions, the same as for the data set.
        seed: Seed of the questions, the same as for the data set.
        kwargs: Arguments of the task, the same as for the data set.

    Columns read:
        index: The question's index in the task. Evaluation questions have an index of `size` or more.

    Returns:
        Per completion: the score (`ok` for 1.0, `wrong` below), 0.0 (`unparsed`: there is no answer, the answer is not
        a plain expression although the scorer uses sympy, or the scorer raises; `timeout`, `died`), or None (`no_gold`:
        there is no index; `infra`).

    Raises:
        ImportError: The package reasoning-gym is not installed.
        ValueError: The package has no such task, or the task has no such argument.
        RuntimeError: More than 1 % of a batch is `infra`.

    Known limits: the scorer of `game_of_life_halting` in reasoning-gym 0.1.25 gives 1.0 to every answer.

    Example:

    ```python
    reward = ReasoningGym("lcm", size=10, seed=0)
    asyncio.run(reward(["<answer>12</answer>"], index=[3]))
    ```
    """

    __name__ = "reasoning_gym"

    def __init__(self, task: str, size: int = 2048, seed: int = 0, **kwargs: Any):
        if importlib.util.find_spec("reasoning_gym") is None:
            raise ImportError(
                f"The reward 'reasoning_gym' cannot score the task {task!r} without its package: pip install "
                "reasoning-gym."
            )
        _check_task(task, seed, kwargs)
        self._size = size
        self._specs = [spec_of(task, seed, n, **kwargs) for n in (size, 2 * size)]

    async def __call__(
        self,
        completions: Sequence[Completion],
        *,
        index: Sequence[int | None],
        log_extra: Callable[[str, list[str]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """Grade a batch, as described in the class."""
        answers = [_answer(completion_text(completion)) for completion in completions]
        statuses = ["no_gold" if question is None else "unparsed" for question in index]
        scores = [0.0] * len(answers)
        gradable = {row: question for row, question in enumerate(index) if question is not None and answers[row]}
        workers = _workers()
        tasks = [(self._specs[question >= self._size], answers[row], question) for row, question in gradable.items()]
        results = await run_in_thread(workers.run, _score, tasks)
        for row, result in zip(gradable, results, strict=True):
            if isinstance(result, str):
                statuses[row] = result
            else:
                statuses[row], scores[row] = "ok" if result == 1.0 else "wrong", result
        return report(self.__name__, statuses, log_extra, log_metric, workers.failure_hint, scores)


def _check_task(name: str, seed: int, kwargs: dict[str, Any]) -> None:
    import reasoning_gym

    try:
        reasoning_gym.create_dataset(**json.loads(spec_of(name, seed, **kwargs)))
    except (TypeError, ValueError, AssertionError) as error:
        raise ValueError(
            f"The task {name!r} with {kwargs or 'no arguments'} cannot be made, so no answer could be scored: "
            f"{' '.join(str(error).split())}. Write a task and arguments of reasoning-gym."
        ) from None


def spec_of(task: str, seed: int, size: int = 1, **kwargs: Any) -> str:
    """The description of a task with `size` questions, for `questions` and `score`."""
    return json.dumps({"name": task, "size": size, "seed": seed, **kwargs})


def questions(spec: str, size: int = 1) -> list[tuple[str, str]]:
    """The text and the answer of each of the first `size` questions.

    Raises:
        ValueError: A question cannot be made.
    """
    made = _workers().run(_question, [(spec, number) for number in range(size)])
    for number, one in enumerate(made):
        if isinstance(one, str):
            raise ValueError(f"question {number} cannot be made ({one})")
    return made


def score(spec: str, answer: str) -> float | str:
    """The score of an answer in [0, 1], or the status of an answer without a score, as in `ReasoningGym`."""
    return _workers().run(_score, [(spec, answer, 0)])[0] if answer else "unparsed"


def _workers() -> Workers:
    os.environ.setdefault("PYTHONHASHSEED", "0")  # inherited by the workers
    return Workers(None, HARD_LIMIT, MEMORY_MB, _prepare)


def _answer(text: str) -> str:
    end = text.rfind("</answer>") + len("</answer>")
    tagged = _TAGGED.findall(text, 0, end)  # a tag that is never closed would make every search read the whole text
    if tagged:
        return tagged[-1].strip()
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


# The functions below run inside a worker.


def _prepare() -> None:
    import reasoning_gym  # noqa: F401


@functools.lru_cache(maxsize=64)  # an environment has one task per question
def _task(spec: str) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(**json.loads(spec))


def _entry(spec: str, question: int) -> dict[str, Any]:
    task = _task(spec)
    random.seed(json.loads(spec)["seed"] + question)  # one task uses this generator without a seed of its own
    return task[question]


def _question(spec: str, question: int) -> tuple[str, str] | str:
    """The text and the answer of a question, or why it cannot be made."""
    try:
        entry = _entry(spec, question)
    except Exception as error:  # tasks raise many kinds of errors
        return f"{error}"
    return entry["question"], str(entry["answer"])


def _score(spec: str, answer: str, question: int) -> float | str:
    task = _task(spec)
    task_module = sys.modules[type(task).__module__]
    if "sympy" in inspect.getsource(task_module) and not _EXPRESSION.fullmatch(answer):
        return "unparsed"
    entry = _entry(spec, question)  # with the real `eval`
    known = {*_texts(entry)} - {answer}
    vars(task_module)["eval"] = lambda text: eval(text) if text in known else ast.literal_eval(text)
    try:
        return float(task.score_answer(answer=answer, entry=entry))
    except Exception:  # scorers raise many kinds of errors on unreadable answers
        return "unparsed"
    finally:
        del vars(task_module)["eval"]


def _texts(value: Any) -> Iterator[str]:
    """All texts in an entry, which the task has made."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _texts(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts(part)
