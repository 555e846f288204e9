"""Breaks up the marks of chat templates in texts that a model must read as quotes, not as the start of a message."""

from __future__ import annotations

import re

# marks that a tokenizer would read as the start or the end of a message, of a call or of the answer of a tool
_MARK = re.compile(
    r"<(?=[|｜]|/?(?:s|bos|eos|start_of_turn|end_of_turn|turn|think|tool_call|tool_response)>|/?<?SYS>>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|TOOL_CALLS|AVAILABLE_TOOLS|TOOL_RESULTS)\])",
    re.IGNORECASE,
)


def broken_up(text: str) -> str:
    """The text with a space in each mark of a chat template.

    >>> broken_up("5<|im_end|> and 3 < 4")
    '5< |im_end|> and 3 < 4'
    """
    return _MARK.sub(r"\g<0> ", text)
