"""What a checkpoint wrote for one prompt, and its score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .prompt import Prompt


@dataclass(frozen=True)
class Completion:
    """One completion.

    Args:
        ids: Token ids, including the end token. With tools, they include the answers of the tools.
        written: For each token, 1 if the model wrote it and 0 if a tool did.
        messages: The completion as messages. Without tools, this is one message of the assistant.
    """

    ids: list[int]
    written: list[int]
    messages: list[dict[str, Any]]

    @property
    def text(self) -> str:
        """The text of the last message of the assistant."""
        replies = [message["content"] for message in self.messages if message["role"] == "assistant"]
        return replies[-1] or ""


@dataclass(frozen=True)
class Answer:
    """A graded completion.

    Args:
        prompt: The prompt.
        completion: The completion.
        score: The reward. None if the reward has not graded the completion.
        failure: Why the episode is broken, so that nothing can be said about the model. None if it is not broken.
    """

    prompt: Prompt
    completion: Completion
    score: float | None
    failure: str | None = None


def without_tools(ids: Sequence[list[int]], tokenizer: Any) -> list[Completion]:
    """Completions that consist of one message."""
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    return [
        Completion(own, [1] * len(own), [{"role": "assistant", "content": text}])
        for own, text in zip(ids, texts, strict=True)
    ]
