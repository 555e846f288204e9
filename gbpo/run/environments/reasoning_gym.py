"""`reasoning_gym:<task>`: a reasoning-gym task in which the model can check several answers."""

from typing import Any

from ..rewards_package import rewards_module


class ReasoningGym:
    """A question of a reasoning-gym task. The score of the last answer is the reward.

    Args:
        task: Name of the task, for example `"lcm"`.
        tries: Number of answers that are scored.
        kwargs: Arguments of the task.
    """

    def __init__(self, task: str, tries: int = 3, **kwargs: Any):
        self._gym = rewards_module("answers.reasoning_gym")
        self._task, self._tries, self._kwargs = task, tries, kwargs
        self._left, self._score = tries, 0.0
        self._spec = self._gym.spec_of(task, 0, **kwargs)
        self._gym.questions(self._spec)  # raises an error if the task is unknown
        self._gym.score(self._spec, "0")  # starts the workers that score, which takes seconds

    def reset(self, seed: int, **row: Any) -> str:
        """Ask the question that has this seed."""
        self._spec = self._gym.spec_of(self._task, seed, **self._kwargs)
        self._left, self._score = self._tries, 0.0
        ((question, _),) = self._gym.questions(self._spec)
        return question

    def submit(self, answer: str) -> str:
        """
        Check an answer.

        Args:
            answer: The answer, without other text.

        Returns:
            The score of the answer, from 0 to 1.
        """
        if self._left == 0:
            return "No tries are left."
        score = self._gym.score(self._spec, str(answer).strip())
        if score == "infra":
            raise ConnectionError("the worker process that scores answers failed")
        self._left -= 1
        self._score = score if isinstance(score, float) else 0.0
        if self._score == 1.0:
            self._left = 0
            return "Correct."
        return f"The score is {self._score:g} of 1. Tries left: {self._left}."

    def get_reward(self) -> float:
        """The score of the last answer. Without an answer, it is 0."""
        return self._score
