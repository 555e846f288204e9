"""The reward `reasoning_gym`: the scorers of reasoning-gym's procedural tasks.

Some scorers call `eval` on the answer, directly or through sympy's parser. Here `eval` reads only literals, and scorers
that use sympy get only plain expressions. Each answer is scored in a worker process that can be killed.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Callable, Sequence
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
        self._specs = [json.dumps({"name": task, "size": n, "seed": seed, **kwargs}) for n in (size, 2 * size)]

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


def spec_of(task: str, seed: int, **kwargs: Any) -> str:
    """The description of a task with one question, for `question_of` and `score`."""
    return json.dumps({"name": task, "size": 1, "seed": seed, **kwargs})


def question_of(spec: str) -> str:
    """The text of the question."""
    return _task(spec)[0]["question"]


def score(spec: str, answer: str) -> float | str:
    """The score of an answer in [0, 1], or the status of an answer without a score, as in `ReasoningGym`."""
    return _workers().run(_score, [(spec, answer, 0)])[0] if answer else "unparsed"


def _workers() -> Workers:
    return Workers(None, HARD_LIMIT, MEMORY_MB, _prepare)


def _answer(text: str) -> str:
    tagged = _TAGGED.findall(text)
    if tagged:
        return tagged[-1].strip()
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


# The functions below run inside a worker.


def _prepare() -> None:
    import reasoning_gym  # noqa: F401


@functools.lru_cache(maxsize=64)  # an environment has one task per question
def _task(spec: str) -> Any:
    import reasoning_gym

    task = reasoning_gym.create_dataset(**json.loads(spec))
    vars(sys.modules[type(task).__module__])["eval"] = ast.literal_eval  # replaces `eval` in the task's module
    return task


def _score(spec: str, answer: str, question: int) -> float | str:
    task = _task(spec)
    uses_sympy = "sympy" in inspect.getsource(sys.modules[type(task).__module__])
    if uses_sympy and not _EXPRESSION.fullmatch(answer):
        return "unparsed"
    try:
        return float(task.score_answer(answer=answer, entry=task[question]))
    except Exception:  # scorers raise many kinds of errors on unreadable answers
        return "unparsed"
