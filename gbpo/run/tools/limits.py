"""Limits for code that the model calls: a failure or a hang becomes a text for the model, not the end of the run."""

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any

from ..rewards_package import rewards_module

MAX_ERROR = 200  # characters of the text about a failure
_timeouts = 0  # calls that were abandoned since `take_timeouts` was last called


class OutOfTimeError(TimeoutError):
    """A call reached its time limit."""


class ToolError(Exception):
    """A failure of a tool. TRL counts it, and its text is the tool's answer to the model."""


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """The result of `call()`, or of the coroutine that it returns, in a thread of its own.

    Raises:
        OutOfTimeError: The call took longer. It goes on in its thread, which does not keep the process alive.
    """
    outcome: list[tuple[Any, BaseException | None]] = []

    def run() -> None:
        try:
            value = call()
            outcome.append((asyncio.run(value) if inspect.iscoroutine(value) else value, None))
        except BaseException as error:  # raised again below; SystemExit would end the thread in silence
            outcome.append((None, error))

    thread = threading.Thread(target=run, name="tool", daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise OutOfTimeError(f"no answer after {seconds:g} seconds")
    value, error = outcome[0]
    if error is not None:
        raise error
    return value


def guarded(tool: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """A tool with the same name, signature and description.

    It returns text, or content parts with an image, and raises nothing but a short `ToolError`.

    Args:
        tool: A function or a method. It may be asynchronous, and still runs in a thread of its own, because code that
            does not await would stop the loop and its time limit.
        seconds: Time limit of a call. A call that takes longer is abandoned and counted.

    >>> guarded(divmod, 1.0)(7, 2)
    '(3, 1)'
    """

    @functools.wraps(tool)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return _answer(within(seconds, lambda: tool(*args, **kwargs)))
        except (Exception, SystemExit) as error:
            raise _tool_error(error) from None

    if not inspect.iscoroutinefunction(tool):
        return call

    @functools.wraps(tool)
    async def call_later(*args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(call, *args, **kwargs)

    return call_later


def take_timeouts() -> int:
    """The number of calls that were abandoned since this function was last called."""
    global _timeouts
    count, _timeouts = _timeouts, 0
    return count


def _answer(result: Any) -> Any:
    """What the model reads: text, or a list of content parts if one of them is an image, for models that see images."""
    if isinstance(result, list) and any(isinstance(part, dict) and part.get("type") == "image" for part in result):
        return [
            {**part, "text": _readable(str(part["text"]))} if isinstance(part, dict) and "text" in part else part
            for part in result
        ]
    return _readable(str(result))


def _readable(text: str) -> str:
    """The text for a tokenizer, which cannot read half a surrogate pair and would read the marks of its template."""
    return rewards_module("shared.chat_marks").broken_up(text.encode("utf-8", "replace").decode())


def _tool_error(error: BaseException) -> ToolError:
    global _timeouts
    if isinstance(error, OutOfTimeError):
        _timeouts += 1
        return ToolError(str(error))
    text = _readable(" ".join(f"{type(error).__name__}: {error}".split()))
    return ToolError(text if len(text) <= MAX_ERROR else f"{text[: MAX_ERROR - 1]}…")
