"""The scorers of reasoning-gym's procedural tasks, as a reward."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from .batch import Completion, completion_text

_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


class ReasoningGym:
    """What the task's own scorer gives for each completion, in [0, 1]; some tasks give partial credit.

    The answer is what stands in the last `<answer>…</answer>`, or the first line that is not blank. Reads the column
    `index`, the question's place in the task; `None` where it is missing. A scorer that raises on an answer gives 0.0.

    Args:
        task: Name of the task, for example `"lcm"`.
        size: Number of questions, as in the data set.
        seed: Seed of the questions, as in the data set.
        kwargs: The task's own arguments, as in the data set.

    Raises:
        ImportError: The package reasoning-gym is missing.

    Example, with the package installed:

    ```python
    reward = ReasoningGym("lcm", size=10, seed=0)
    reward(["<answer>12</answer>"], index=[3])
    ```
    """

    __name__ = "reasoning_gym"

    def __init__(self, task: str, size: int = 2048, seed: int = 0, **kwargs: Any):
        try:
            import reasoning_gym
        except ImportError:
            raise ImportError(
                f"The reward 'reasoning_gym' for the task {task!r} needs a package: pip install reasoning-gym."
            ) from None
        self._task = reasoning_gym.create_dataset(task, size=size, seed=seed, **kwargs)

    def __call__(
        self, completions: Sequence[Completion], *, index: Sequence[int | None], **_: Any
    ) -> list[float | None]:
        return [
            None if place is None else self._score(completion_text(completion), place)
            for completion, place in zip(completions, index, strict=True)
        ]

    def _score(self, text: str, place: int) -> float:
        tagged = _TAGGED.findall(text)
        answer = (
            tagged[-1].strip() if tagged else next((line.strip() for line in text.splitlines() if line.strip()), "")
        )
        if not answer:
            return 0.0
        entry = self._task[place]
        try:
            return float(self._task.score_answer(answer=answer, entry=entry))
        except Exception:  # whatever a scorer raises on junk
            return 0.0
