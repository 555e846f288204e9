"""Completions in an environment. Each is graded before its environment begins another episode."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from datasets import Dataset
from transformers.utils import get_json_schema

from gbpo.run.environments.checks import Episodes
from gbpo.run.environments.episode import Episode, close, failure, own_reward
from gbpo.run.tools.named_tools import tool_methods

from .batches import batches
from .checkpoint import Checkpoint, memory_released
from .completion import Answer, Completion
from .generation import with_transformers
from .grading import grade
from .prompt import Generate, Prompt
from .settings import Settings
from .tool_turns import ToolTurns

Rows = Sequence[dict[str, Any]]


def act(
    checkpoint: Checkpoint,
    questions: Dataset,
    settings: Settings,
    kinds: Episodes,
    reward: Callable[..., Any] | None,
) -> tuple[list[Answer], list[Answer]]:
    """Play `settings.samples` sampled episodes and a greedy one with each row of a data set.

    Args:
        checkpoint: The model.
        questions: The rows, whose prompts are lists of messages.
        settings: The sampling and the tools.
        kinds: The episodes of each environment.
        reward: The reward. None: the rewards that the environments give.

    Returns:
        The sampled and the greedy answers. Sampled answers of the same row follow each other.
    """
    stage = _Stage(checkpoint, settings, kinds, reward)
    try:
        with memory_released():
            return with_transformers(checkpoint, list(questions), settings, stage.play)
    finally:
        stage.close()


class _Stage:
    """Environments that are used again and again, with as many instances as a batch has rows."""

    def __init__(self, checkpoint: Checkpoint, settings: Settings, kinds: Episodes, reward: Callable[..., Any] | None):
        self._checkpoint, self._settings, self._kinds, self._reward = checkpoint, settings, kinds, reward
        self._instances: dict[str | None, list[Episode]] = {name: [] for name in kinds}
        form = settings.prompts
        self._forms = {
            name: dataclasses.replace(form, tools=[*form.tools, *map(get_json_schema, tool_methods(kind()).values())])
            for name, kind in kinds.items()
        }

    def play(self, rows: Rows, generate: Generate) -> list[Answer]:
        """One episode with each row."""
        turns = ToolTurns(self._checkpoint, self._settings, generate)
        found = []
        for batch in batches(range(len(rows)), self._settings.batch_size, "episodes"):
            found += self._play_together([rows[i] for i in batch], turns)
        return found

    def _play_together(self, rows: Rows, turns: ToolTurns) -> list[Answer]:
        names = [None if None in self._kinds else row["environment"] for row in rows]
        episodes = self._instances_of(names)
        prompts = [_begin(episode, row, name) for episode, row, name in zip(episodes, rows, names, strict=True)]
        tokenizer = self._checkpoint.tokenizer
        ids = [self._forms[name].token_ids([prompt], tokenizer)[0] for name, prompt in zip(names, prompts, strict=True)]
        written = turns.complete(ids, episodes)
        scores = self._scores(rows, prompts, episodes, written)
        return [
            Answer(Prompt(prompt), one, score, failure(episode))
            for prompt, one, score, episode in zip(ids, written, scores, episodes, strict=True)
        ]

    def _instances_of(self, names: Sequence[str | None]) -> list[Episode]:
        """A different instance for each name."""
        for name, kind in self._kinds.items():
            own = self._instances[name]
            own += [kind() for _ in range(names.count(name) - len(own))]
        left = {name: iter(own) for name, own in self._instances.items()}
        return [next(left[name]) for name in names]

    def _scores(
        self, rows: Rows, prompts: Sequence[Any], episodes: Sequence[Episode], written: Sequence[Completion]
    ) -> list[float | None]:
        if self._reward is None:
            return [own_reward(episode, one.messages) for episode, one in zip(episodes, written, strict=True)]
        columns = {name: [row[name] for row in rows] for name in rows[0]} | {"prompt": list(prompts)}
        return grade(self._reward, columns, written, environments=list(episodes))

    def close(self) -> None:
        """Close all environments."""
        for episode in (episode for own in self._instances.values() for episode in own):
            close(episode)


def _begin(episode: Episode, row: dict[str, Any], name: str | None) -> list[dict[str, Any]]:
    """Begin an episode, and add its text to the prompt of the row, as TRL does."""
    columns = row if name is None else {key: value for key, value in row.items() if key != "environment"}
    text = episode.reset(**columns)
    *earlier, last = row["prompt"]
    if text is None:
        return row["prompt"]
    content = last["content"]
    added = text if isinstance(content, str) else [{"type": "text", "text": text}]
    return [*earlier, {**last, "content": content + added}]
