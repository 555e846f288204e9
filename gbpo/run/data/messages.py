"""Prompts as data sets have them: text, messages in several spellings, and conversations with the answer at the end."""

import json
from typing import Any

from datasets import Dataset

from ..rewards_package import rewards_module

_ROLES = {"human": "user", "gpt": "assistant"}  # of messages with the keys `from` and `value`


def read_prompts(dataset: Dataset, name: str) -> tuple[Dataset, list[str]]:
    """Check the column `prompt`, and bring its messages into one form.

    A prompt becomes text or a list of messages with a role and a text. Messages may have the keys `from` and `value`,
    their content may be a list of text parts, and the list of messages may be JSON text. Assistant messages at the end
    are removed, because they contain the answer.

    Args:
        dataset: The data set.
        name: Its name, for errors and notes.

    Returns:
        The data set, and a line that says how many prompts ended with an assistant message, if any did.

    Raises:
        ValueError: A prompt is neither text nor messages that a text model can read, or there are both.
    """
    given = list(dataset["prompt"])
    prompts, ended = [], []
    for row, prompt in enumerate(given):
        try:
            read = _read(prompt)
            kept = _without_answer(read) if isinstance(read, list) else read
        except ValueError as error:
            raise ValueError(f"Row {row} of {name!r} has the prompt {_shown(prompt)}{error}") from None
        prompts.append(kept)
        if len(kept) < len(read):
            ended.append(row)
    if len({type(prompt) for prompt in prompts}) > 1:
        first = next(row for row, prompt in enumerate(prompts) if type(prompt) is not type(prompts[0]))
        raise ValueError(
            f"Row {first} of {name!r} has the prompt {_shown(given[first])}, but row 0 has {_shown(given[0])}: prompts "
            "are either all text or all messages. Write all of them in one form."
        )
    if prompts != given:
        dataset = rewards_module("shared.columns").with_column(dataset, "prompt", prompts)
    if not ended:
        return dataset, []
    return dataset, [
        f"{len(ended)} of {len(prompts)} prompts of {name!r} end with an assistant message, first in row {ended[0]}. "
        "It is left out, because it would give the answer away."
    ]


def _read(prompt: Any) -> str | list[dict[str, Any]]:
    """A prompt as text or as messages."""
    if isinstance(prompt, str) and prompt.lstrip().startswith("[{"):
        try:
            messages = json.loads(prompt)
        except (ValueError, RecursionError):
            return prompt
        if not all(isinstance(message, dict) and message.keys() & {"role", "from"} for message in messages):
            return prompt
        return [_message(message) for message in messages]
    if not prompt or not isinstance(prompt, str | list):
        raise ValueError(". Write a text or messages.")
    return prompt if isinstance(prompt, str) else [_message(message) for message in prompt]


def _message(message: Any) -> dict[str, Any]:
    """A message with a role and a text."""
    if isinstance(message, dict) and {"from", "value"} <= message.keys():
        message = {"role": _ROLES.get(message["from"], message["from"]), "content": message["value"]}
    if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
        raise ValueError(", which is not a list of messages. Give every message a role and a content.")
    content = message["content"]
    if isinstance(content, list):
        content = "".join(map(_text_of_part, content))
    if not isinstance(content, str) and not message.get("tool_calls"):  # a message that calls tools needs no content
        raise ValueError(f", in which a message has the content {content!r}. Write a text.")
    return {**message, "content": content}


def _text_of_part(part: Any) -> str:
    text = part.get("text") if isinstance(part, dict) else part
    kind = part.get("type", "text") if isinstance(part, dict) else "text"
    if kind != "text" or not isinstance(text, str):
        raise ValueError(
            f", in which a message has a part of type {kind!r}. Recipes train on text only: remove these rows, or use "
            "GBPOTrainer in Python with a processor."
        )
    return text


def _without_answer(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages before the assistant messages at the end."""
    end = len(messages)
    while end and messages[end - 1]["role"] == "assistant":
        end -= 1
    if end < len(messages) and not any(message["role"] == "user" for message in messages[:end]):
        raise ValueError(", which has no user message before its answer. Write the question as a message of the user.")
    return messages[:end]


def _shown(prompt: Any) -> str:
    text = repr(prompt)
    return text if len(text) <= 200 else f"{text[:200]}…"
