"""`builtin:python`: runs code in the sandbox. Each completion has its own variables."""

import inspect
import logging
from typing import Any

from ..rewards_package import rewards_module
from . import replay
from .limits import OutOfTimeError, guarded

logger = logging.getLogger(__name__)

MAX_OUTPUT = 2000  # characters of the output that the model sees


class PythonSession:
    """The tool `python` of one completion. TRL creates one instance per completion and resets it for the next one.

    A call starts a new sandbox, which runs the code of the earlier calls again, without their output, and then the new
    code. So no process waits while the model writes, and every call has the limits of the sandbox. Earlier code that
    depends on the time or on random numbers may give other values when it runs again.
    """

    _box: Any
    _limit: float

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def reset(self, **row: Any) -> None:
        """Forget all variables."""
        self._pieces = []

    def python(self, code: str) -> str:
        """
        Run Python code. Variables of earlier calls are still there.

        Args:
            code: The code. The value of a last expression is printed.

        Returns:
            What the code printed, or the error.
        """
        pieces = [*self._pieces, code]
        program = f"{inspect.getsource(replay)}\n\nreplay({pieces!r})\n"
        (outcome,) = self._box.run(program, [{"stdin": ""}])
        if outcome.end == "timeout":
            raise OutOfTimeError(f"no result after {self._limit:g} seconds; the variables are those from before")
        if outcome.end != "ok":
            reason = {"overflow": "it printed or wrote too much"}.get(outcome.end, "it ended its own process")
            raise RuntimeError(f"{reason}; the variables are those from before")
        self._pieces = pieces
        output = outcome.data.decode(errors="replace").strip()
        more = len(output) - MAX_OUTPUT
        return output if more <= 0 else f"{output[:MAX_OUTPUT]}… ({more} more characters)"


def session_class(seconds: float) -> type[PythonSession]:
    """The class of the sessions of a run.

    Args:
        seconds: Time limit of a call.

    Raises:
        ValueError: No sandbox starts, or a layer of it is missing.
    """
    boxes = rewards_module("programs.sandbox.box")
    box = boxes.Box(seconds=seconds, total_seconds=seconds)
    try:
        box.ready()
    except boxes.BoxError as error:
        raise ValueError(f"The tool 'builtin:python' has no sandbox that is safe to use: {error}") from None
    # the limit of the sandbox ends the code itself; this one is for a sandbox that does not start
    python = guarded(PythonSession.python, boxes.backends.START_SECONDS + 2 * seconds)
    return type("PythonSession", (PythonSession,), {"_box": box, "_limit": seconds, "python": python})
