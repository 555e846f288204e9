"""The scorers of reasoning-gym's procedural tasks, as a reward.

Some of these scorers call `eval`, or sympy's parser, which does, on the answer itself. Here `eval` reads literals only,
answers for a scorer that uses sympy must be plain expressions, and each is scored in a worker that can be killed.
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

from ..shared.batch import Completion, completion_text, in_thread, report
from ..shared.workers import Workers

HARD_LIMIT = 8.0  # seconds for one answer
MEMORY_MB = 1024  # of one worker, beyond its imports

_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
# numbers, operators, one-letter names and a few functions: nothing by which Python code could be reached
_FUNCTIONS = "sqrt|exp|log|ln|a?sinh?|a?cosh?|a?tanh?|sec|csc|cot|pi|Abs"
_EXPRESSION = re.compile(
    rf"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+|[-+*/^()=, ]|(?<![A-Za-z])(?:[A-Za-z]|{_FUNCTIONS})(?![A-Za-z]))*"
)


class ReasoningGym:
    """What the task's own scorer gives for each completion, in [0, 1]; some tasks give partial credit.

    The answer is what stands in the last `<answer>…</answer>`, or the first line that is not blank.

    Args:
        task: Name of the task, for example `"lcm"`.
        size: Number of questions, as in the data set.
        seed: Seed of the questions, as in the data set.
        kwargs: The task's own arguments, as in the data set.

    Columns read:
        index: The question's place in the task; from `size` on, that of an evaluation question.

    Returns:
        Per completion: the score (`ok` for 1.0, `wrong` below), 0.0 (`unparsed`: no answer, one that a scorer with
        sympy must not see, or one on which the scorer raises; `timeout`, `died`), or None (`no_gold`: there is no
        index; `infra`).

    Raises:
        ImportError: The package reasoning-gym is missing.
        RuntimeError: More than 1 % of a batch is `infra`.

    Example, with the package installed:

    ```python
    reward = ReasoningGym("lcm", size=10, seed=0)
    asyncio.run(reward(["<answer>12</answer>"], index=[3]))
    ```
    """

    __name__ = "reasoning_gym"

    def __init__(self, task: str, size: int = 2048, seed: int = 0, **kwargs: Any):
        if importlib.util.find_spec("reasoning_gym") is None:
            raise ImportError(
                f"The reward 'reasoning_gym' for the task {task!r} needs a package: pip install reasoning-gym."
            )
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
        """Grade a batch; the class says how."""
        answers = [_answer(completion_text(completion)) for completion in completions]
        statuses = ["no_gold" if place is None else "unparsed" for place in index]
        scores = [0.0] * len(answers)
        places = {row: place for row, place in enumerate(index) if place is not None and answers[row]}
        workers = Workers(None, HARD_LIMIT, MEMORY_MB, _prepare)
        questions = [(self._specs[place >= self._size], answers[row], place) for row, place in places.items()]
        results = await in_thread(workers.run, _score, questions)
        for row, result in zip(places, results, strict=True):
            if isinstance(result, str):
                statuses[row] = result
            else:
                statuses[row], scores[row] = "ok" if result == 1.0 else "wrong", result
        return report(self.__name__, statuses, log_extra, log_metric, workers.check, scores)


def _answer(text: str) -> str:
    tagged = _TAGGED.findall(text)
    if tagged:
        return tagged[-1].strip()
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


# Below: what runs inside a worker.


def _prepare() -> None:
    import reasoning_gym  # noqa: F401


@functools.cache
def _task(spec: str) -> Any:
    import reasoning_gym

    task = reasoning_gym.create_dataset(**json.loads(spec))
    vars(sys.modules[type(task).__module__])["eval"] = ast.literal_eval  # before the builtin of this name
    return task


def _score(spec: str, answer: str, place: int) -> float | str:
    task = _task(spec)
    with_sympy = "sympy" in inspect.getsource(sys.modules[type(task).__module__])
    if with_sympy and not _EXPRESSION.fullmatch(answer):
        return "unparsed"
    try:
        return float(task.score_answer(answer=answer, entry=task[place]))
    except Exception:  # whatever a scorer raises on junk
        return "unparsed"
