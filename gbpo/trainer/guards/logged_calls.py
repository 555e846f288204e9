"""Calls of tools in the table of completions."""

import json
from typing import Any


def with_text_arguments(messages: Any) -> Any:
    """A prompt or a completion in which the arguments of every call are JSON text.

    A column of the table of completions has one type, but a model may write a number in one call and text in another.

    >>> call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    >>> with_text_arguments([{"role": "assistant", "content": "", "tool_calls": [call]}])[0]["tool_calls"]
    [{'type': 'function', 'function': {'name': 'add', 'arguments': '{"a": 1}'}}]
    """
    if isinstance(messages, str):
        return messages
    return [
        {**message, "tool_calls": [_with_text(call) for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else message
        for message in messages
    ]


def _with_text(call: dict[str, Any]) -> dict[str, Any]:
    if "function" in call:
        return {**call, "function": _with_text(call["function"])}
    arguments = call.get("arguments", "")
    return call if isinstance(arguments, str) else {**call, "arguments": json.dumps(arguments, ensure_ascii=False)}
