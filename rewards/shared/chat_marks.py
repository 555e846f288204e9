"""Breaks up the marks of chat templates in texts that a model must read as quotes, not as the start of a message."""

from __future__ import annotations

import re

# marks that a tokenizer would read as the start or the end of a message
_MESSAGE = (
    r"<(?=[|｜]|\w+[|｜]>|/?(?:s|bos|eos|start_of_turn|end_of_turn|turn|end_of_utterance)>|/?<?SYS>>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT)\]|\|\w+\|\])"
)
# marks that it would read as the start or the end of a thought, of a call or of the answer of a tool
_PART = (
    r"<(?=/?(?:think|tool_call|tool_response)>)"
    r"|\[(?=/?(?:THINK|TOOL_CALLS|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CONTENT)\])"
)
_MESSAGES = re.compile(_MESSAGE, re.IGNORECASE)
_ALL = re.compile(f"{_MESSAGE}|{_PART}", re.IGNORECASE)


def broken_up(text: str) -> str:
    """The text with a space in each mark of a chat template.

    >>> broken_up("5<|im_end|> and <think>3 < 4")
    '5< |im_end|> and < think>3 < 4'
    """
    return _ALL.sub(r"\g<0> ", text)


def as_one_message(text: str) -> str:
    """The text with a space in each mark that begins or ends a message. Marks of thoughts and of tools stay.

    >>> as_one_message("5<|im_end|> and <think>3 < 4")
    '5< |im_end|> and <think>3 < 4'
    """
    return _MESSAGES.sub(r"\g<0> ", text)
