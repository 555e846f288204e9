"""Environments that recipes of the tests name by a dotted path."""

import os
import signal
from pathlib import Path

from gbpo.run.environments.code_word import CodeWord


class Room:
    """Every row has a number, which `look` shows and `leave` asks for."""

    def reset(self, seed: int = 0, **row):
        self.seed, self.value = seed, 0.0
        return f"Room {seed % 10}."

    def look(self) -> str:
        """Look around."""
        return str(self.seed % 10)

    def leave(self, number: str) -> str:
        """
        Leave the room.

        Args:
            number: Its number.
        """
        self.value = float(number == str(self.seed % 10))
        return "done"

    def get_reward(self) -> float:
        return self.value


def not_an_environment():
    return 3


class NoReset:
    def look(self) -> str:
        """Look around."""


class NoTool(Room):
    look = leave = None


class NoHint(Room):
    def look(self, where):
        """Look around."""


class NoDocs(Room):
    def look(self, where: str) -> str:
        return where


class Yields(Room):
    def walk(self) -> str:
        """Walk."""
        yield "done"


class OneColumn(Room):
    def reset(self, seed: int):
        return str(seed)


class OtherColumns(Room):
    def reset(self, level: int):
        return str(level)


class NotOfTheRow(Room):
    count = 0

    def reset(self, **row):
        NotOfTheRow.count += 1
        return f"Room {NotOfTheRow.count}."


class NoText(Room):
    def reset(self, **row):
        return 3


class NoTask(Room):
    def reset(self, **row):
        return None


class NoReward(Room):
    get_reward = property()


class Unmade(Room):
    def __init__(self):
        raise OSError("no licence")


NOT_CALLABLE = 3


class Questions(CodeWord):
    """Every letter that was asked for is worth 1."""

    def get_reward(self) -> float:
        return float(self._revealed)


class Mortal(Questions):
    """Kills its process in the third generation of 16 completions, if the file `kill` exists in the working folder."""

    resets = 0

    def reset(self, **row):
        Mortal.resets += 1
        return super().reset(**row)

    def ask(self) -> str:
        """Show a letter."""
        if Mortal.resets > 40 and (flag := Path("kill")).exists():  # with the resets of the checks before the run
            flag.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().ask()
