"""A few completions of the last generation, as text for the page of a run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...shared.pages.render import thinned
from ..rollouts import files

GROUPS = 4
LONGEST = 1_500  # characters of a text; the middle of a longer one is left out


@dataclass(frozen=True)
class Message:
    """A message of a conversation, or a whole text.

    Args:
        role: Who wrote it. Empty for text without roles.
        start: The text, or its beginning.
        left_out: Number of characters between `start` and `end`.
        end: The end of a text that is too long.
    """

    role: str
    start: str
    left_out: int = 0
    end: str = ""

    @classmethod
    def of(cls, role: str, text: str) -> "Message":
        """A message whose text is shortened if it is too long."""
        half = LONGEST // 2
        if len(text) <= LONGEST:
            return cls(role, text)
        return cls(role, text[:half], len(text) - 2 * half, text[-half:])


@dataclass(frozen=True)
class Sample:
    """A completion.

    Args:
        facts: The weighted sum as `reward`, then, if there are more than one, the rewards by their names, and why the
            rewards are what they are.
        messages: What the model wrote.
    """

    facts: dict[str, str]
    messages: list[Message]


@dataclass(frozen=True)
class SampledGroup:
    """A prompt with the completions of the highest and of the lowest reward in its group."""

    prompt: list[Message]
    size: int
    samples: list[Sample]


@dataclass(frozen=True)
class Samples:
    """Groups of a generation, with the first and the last optimiser step that trained on it."""

    steps: tuple[int, int]
    groups: list[SampledGroup]


def last_samples(run: Path) -> Samples | str:
    """Groups of the last generation, evenly spaced, or one sentence that says why there are none."""
    try:
        record = files.read(files.files_of(run)[-1].path)
    except ValueError as error:
        return str(error)
    groups = [_group(group) for group in thinned(record["groups"], GROUPS)]
    return Samples(tuple(record["steps"]), groups)


def _group(group: Mapping[str, Any]) -> SampledGroup:
    ranked = sorted(
        group["completions"],
        key=lambda one: float("-inf") if one["reward"] is None else one["reward"],
        reverse=True,
    )
    prompt = {**group["row"], **ranked[0].get("row", {})}["prompt"]
    shown = [ranked[0], ranked[-1]] if len(ranked) > 1 else ranked
    return SampledGroup(_messages(prompt), len(ranked), [_sample(one) for one in shown])


def _sample(one: Mapping[str, Any]) -> Sample:
    by_name = one["rewards"] if len(one["rewards"]) > 1 else {}
    numbers = {"reward": one["reward"], **by_name}
    facts = {name: "none" if value is None else f"{value:.4g}" for name, value in numbers.items()}
    return Sample(facts | {name: str(value) for name, value in one["statuses"].items()}, _messages(one["completion"]))


def _messages(value: Any) -> list[Message]:
    if not isinstance(value, list):
        return [Message.of("", str(value))]
    return [Message.of(str(message.get("role", "")), _text(message)) for message in value]


def _text(message: Mapping[str, Any]) -> str:
    """The content of a message and its calls of tools."""
    content = message.get("content") or ""
    if isinstance(content, list):
        content = "".join(str(part.get("text", f"[{part.get('type')}]")) for part in content)
    calls = [call.get("function", call) for call in message.get("tool_calls") or []]
    lines = [f"{call.get('name')}({json.dumps(call.get('arguments'), ensure_ascii=False)})" for call in calls]
    return "\n".join([*([str(content)] if content else []), *lines])
