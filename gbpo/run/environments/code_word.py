"""`builtin:code_word`: the environment of the demo, in which asking before answering wins."""

import random

LETTERS = "abcdefgh"
LENGTH = 2
TASK = "Find the code."


class CodeWord:
    """A code of two letters. Each `ask` reveals the next letter, and `answer` ends the episode.

    The prompt does not contain the code. A model that answers at once is right once in 64 episodes.
    """

    def __init__(self):
        self._code, self._revealed, self._answer = "", 0, None

    def reset(self, seed: int, **row) -> str:
        """Choose the code of the row."""
        letters = random.Random(seed)
        self._code = "".join(letters.choice(LETTERS) for _ in range(LENGTH))
        self._revealed, self._answer = 0, None
        return TASK

    def ask(self) -> str:
        """Show a letter.

        Returns:
            The next letter of the code.
        """
        if self._revealed == len(self._code):
            return "no more"
        self._revealed += 1
        return self._code[self._revealed - 1]

    def answer(self, code: str) -> str:
        """Answer.

        Args:
            code: The code.

        Returns:
            Whether it is right.
        """
        if self._answer is None:  # the first answer counts
            self._answer = code
        return "right" if self._answer == self._code else "wrong"

    def get_reward(self) -> float:
        """1 for the right code, else 0."""
        return float(self._answer == self._code)
