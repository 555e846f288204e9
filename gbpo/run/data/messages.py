"""Prompts as data sets have them: text, messages in several spellings, and conversations with the answer at the end."""

import re
from collections.abc import Sequence
from typing import Any

from datasets import Dataset

from ..rewards_package import rewards_module

_ROLES = {"human": "user", "prompter": "user"}  # other names of roles
_ROLES |= dict.fromkeys(("gpt", "chatgpt", "model", "bot", "ai"), "assistant")
_OBJECTS = re.compile(r"\s*\[\s*\{")  # the beginning of a list of objects as text
_MESSAGES = re.compile(rf"{_OBJECTS.pattern}\s*['\"](?:role|from|content|value)['\"]\s*:")  # that of messages
_IMAGE_TAG = "<image>"  # the place of an image in a text
_IMAGE = {"type": "image", "text": None}  # the place of an image in a message


def read_prompts(dataset: Dataset, name: str, images: Sequence[int] | None = None) -> tuple[Dataset, list[str]]:
    """Check the column `prompt`, and bring its messages into one form.

    A prompt becomes text or a list of messages with a role and a text. Messages may have the keys `from` and `value`,
    their content may be a list of text parts, and the list of messages may be text, as JSON or Python write it.
    Assistant messages at the end are removed, because they contain the answer. Keys whose value is null are removed,
    because Parquet files have them for keys that only other messages have.

    With images, every prompt becomes a list of messages, and the content of every message a list of parts, with a place
    for each image. The places are the parts of type `image` and the tags `<image>` of the prompt. If there are none,
    the images go before the first message of the user.

    Args:
        dataset: The data set.
        name: Its name, for errors and notes.
        images: Number of images of each row, if there are images.

    Returns:
        The data set, and a line that says how many prompts ended with an assistant message, if any did.

    Raises:
        ValueError: A prompt is neither text nor messages that the model can read, there are both, or the number of
            places differs from the number of images.
    """
    changed: dict[int, Any] = {}
    ended = []
    first: Any = None
    for row, prompt in enumerate(dataset["prompt"]):
        try:
            kept, has_answer = _read(prompt)
            if images is not None and isinstance(kept, str):
                kept = [{"role": "user", "content": kept}]
            if images is None:
                kept = _without_images(kept)
            elif isinstance(kept, list):
                kept = _with_places(kept, images[row])
        except ValueError as error:
            raise ValueError(f"Row {row} of {name!r} has the prompt {_shown(prompt)}{error}") from None
        first = kept if row == 0 else first
        if type(kept) is not type(first):
            raise ValueError(
                f"Row {row} of {name!r} has the prompt {_shown(kept)}, but row 0 has {_shown(first)}: prompts are "
                "either all text or all messages. Write all of them in one form."
            )
        if has_answer:
            ended.append(row)
        if kept != prompt:
            changed[row] = kept
    if changed:
        prompts = [changed.get(row, prompt) for row, prompt in enumerate(dataset["prompt"])]
        dataset = rewards_module("shared.columns").with_column(dataset, "prompt", prompts)
    if not ended:
        return dataset, []
    return dataset, [
        f"{len(ended)} of {len(dataset)} prompts of {name!r} end with an assistant message, first in row {ended[0]}. "
        "It is left out, because it would give the answer away."
    ]


def _read(prompt: Any) -> tuple[str | list[dict[str, Any]], bool]:
    """A prompt as text or as messages without an answer, and whether an answer was at its end."""
    if isinstance(prompt, str) and _OBJECTS.match(prompt):
        try:
            messages = rewards_module("shared.literals").read_literal(prompt)
        except (ValueError, RecursionError) as error:
            if not _MESSAGES.match(prompt):
                return prompt, False
            raise ValueError(
                f", which begins like messages but is neither JSON nor a list of Python: {error}. Write JSON."
            ) from None
        if not all(isinstance(message, dict) and message.keys() & {"role", "from"} for message in messages):
            return prompt, False
        return _without_answer(messages)
    if not prompt or (isinstance(prompt, str) and not prompt.strip()) or not isinstance(prompt, str | list):
        raise ValueError(". Write a text or messages. With an environment, the column may be missing.")
    return (prompt, False) if isinstance(prompt, str) else _without_answer(prompt)


def _without_answer(messages: Sequence[Any]) -> tuple[list[dict[str, Any]], bool]:
    """The messages before the assistant messages at the end, and whether there are such. These need no text."""
    end = len(messages)
    while end and isinstance(messages[end - 1], dict) and _role(messages[end - 1]) == "assistant":
        end -= 1
    kept = [_message(message) for message in messages[:end]]
    has_answer = end < len(messages)
    if has_answer and not any(message["role"] == "user" for message in kept):
        raise ValueError(", which has no user message before its answer. Write the question as a message of the user.")
    return kept, has_answer


def _role(message: dict[str, Any]) -> Any:
    """The role of a message by its usual name."""
    role = message.get("role") or message.get("from")
    return _ROLES.get(role.lower(), role.lower()) if isinstance(role, str) else role


def _message(message: Any) -> dict[str, Any]:
    """A message with a role and a text."""
    if isinstance(message, dict) and {"from", "value"} <= message.keys():
        message = {"role": message["from"], "content": message["value"]}
    if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
        raise ValueError(", which is not a list of messages. Give every message a role and a content.")
    if not isinstance(message["role"], str) or not message["role"]:
        raise ValueError(f", which has a message with the role {message['role']!r}. Write system, user or assistant.")
    content = message["content"]
    if isinstance(content, list):
        content = [_part(part) for part in content]
    elif not isinstance(content, str) and not message.get("tool_calls"):  # a message that calls tools needs no content
        raise ValueError(f", in which a message has the content {content!r}. Write a text.")
    return {**_without_nulls(message), "role": _role(message), "content": content}


def _without_nulls(value: Any) -> Any:
    """A value without the keys of its objects whose value is null."""
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


def _part(part: Any) -> dict[str, Any]:
    """A part of a message: a text or the place of an image."""
    text = part.get("text") if isinstance(part, dict) else part
    kind = part.get("type", "text") if isinstance(part, dict) else "text"
    if kind == "image":
        return _IMAGE
    if kind != "text" or not isinstance(text, str):
        raise ValueError(
            f", in which a message has a part of type {kind!r}. Recipes train on text and images: remove these rows, "
            "or use GBPOTrainer in Python with a processor."
        )
    return {"type": "text", "text": text}


def _without_images(prompt: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """The prompt with the texts of each message joined."""
    if isinstance(prompt, str):
        return prompt
    joined = []
    for message in prompt:
        content = message["content"]
        if isinstance(content, list):
            if _IMAGE in content:
                raise ValueError(
                    ", in which a message has a part of type 'image', but there is no image_column: the model would "
                    "see the text only. Write image_column: COLUMN, or remove these parts."
                )
            content = "".join(part["text"] for part in content)
        joined.append({**message, "content": content})
    return joined


def _with_places(messages: list[dict[str, Any]], images: int) -> list[dict[str, Any]]:
    """Messages whose contents are lists of parts, with a place for each of the images."""
    placed = [{**message, "content": _parts(message["content"])} for message in messages]
    places = sum(message["content"].count(_IMAGE) for message in placed)
    if not places:
        first = next((message for message in placed if message["role"] == "user"), None)
        if first is None:
            raise ValueError(", which has no user message, so the images have no place. Write one.")
        first["content"] = [_IMAGE] * images + first["content"]
    elif places != images:
        raise ValueError(
            f", which has {places} place(s) for {images} image(s). Write {_IMAGE_TAG} once for each image, or leave "
            "it out."
        )
    return placed


def _parts(content: Any) -> list[dict[str, Any]]:
    """The content of a message as a list of parts. A tag `<image>` in a text becomes the place of an image."""
    parts = []
    for part in [{"type": "text", "text": content or ""}] if not isinstance(content, list) else content:
        if part is _IMAGE:
            parts.append(_IMAGE)
            continue
        for number, text in enumerate(part["text"].split(_IMAGE_TAG)):
            parts += [_IMAGE] if number else []
            parts += [{"type": "text", "text": text}] if text else []
    return parts


def _shown(prompt: Any) -> str:
    text = repr(prompt)
    return text if len(text) <= 200 else f"{text[:200]}…"
