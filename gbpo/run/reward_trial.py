"""Calls each of the user's own rewards once, before a model is loaded."""

import asyncio
import inspect
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainerState

from .data.prompts import PromptFormat
from .recipe.parsing import Recipe
from .rewards import named_rewards

_WRONG, _EMPTY = "0", ""  # the stand-ins for completions; a model may end a completion at once


def try_own_rewards(
    recipe: Recipe, rewards: Sequence[Callable[..., Any]], train_set: Dataset, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Call `try_rewards` for the rewards that a recipe names by a dotted path.

    Without an environment only: a reward may read its episodes, and there are none before the run.

    Args:
        recipe: The recipe.
        rewards: Its rewards, in the order of `reward_funcs`.
        train_set: The training set.
        tokenizer: The tokenizer of the model, whose chat template decides the form of prompts and completions.
    """
    names = named_rewards(recipe.run)
    own = {name: reward for name, reward in zip(names, rewards, strict=False) if "." in name}
    if own and not recipe.run.environment:
        row = PromptFormat.of(recipe).format(train_set.select([0]), tokenizer)[0]
        try_rewards(own, row, recipe.training.num_generations)


def try_rewards(rewards: Mapping[str, Callable[..., Any]], row: Mapping[str, Any], count: int) -> None:
    """Grade stand-ins for the completions of one prompt, the last of them empty, with the arguments that TRL passes.

    Args:
        rewards: The rewards by their names.
        row: A row of the training set, with the prompt in its final form.
        count: Completions of the prompt.

    Raises:
        ValueError: A reward raises an error, returns something else than one finite number or None for each
            completion, or logs another number of values.
    """
    prompt = row["prompt"]
    is_text = isinstance(prompt, str)
    texts = [_WRONG] * (count - 1) + [_EMPTY]
    completions = texts if is_text else [[{"role": "assistant", "content": text}] for text in texts]
    columns = {name: value for name, value in row.items() if name not in ("prompt", "completion", "completion_ids")}
    same = {name: [value] * count for name, value in {"completion_ids": [0], **columns}.items()}
    batch = {"prompts": [prompt] * count, "completions": completions, **same}
    logged: Counter[str] = Counter()  # values of each column; several calls may fill it

    def log_extra(column: str, values: Sequence[Any]) -> None:
        logged[column] += len(values)

    tools = {"trainer_state": TrainerState(), "log_extra": log_extra, "log_metric": lambda name, value: None}
    for name, reward in rewards.items():
        try:
            inspect.signature(reward).bind(**batch, **tools)
        except TypeError as error:
            raise ValueError(
                f"The reward {name!r} cannot take the arguments that a run passes, so a run would end: {error}. Write "
                "completions, the columns that it reads, and **kwargs as its parameters."
            ) from None
        try:
            values = reward(**batch, **tools)
            if inspect.iscoroutine(values):
                values = asyncio.run(values)
        except (Exception, SystemExit) as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            is_about_messages = not is_text and "list" in str(error)
            raise ValueError(
                f"The reward {name!r} raised {type(error).__name__}: {' '.join(str(error).split())[:300]} "
                f"({Path(where.filename).name}, line {where.lineno}) for the completions {_WRONG!r} and {_EMPTY!r} of "
                "the first prompt, so a run would end. Correct the reward: return 0 for a wrong completion, and None "
                "for one that cannot be graded."
                + (" A completion is a list of messages here: read completion[-1]['content']." * is_about_messages)
            ) from None
        if inspect.isgenerator(values) or inspect.isasyncgen(values):
            raise ValueError(
                f"The reward {name!r} yields values, but a run reads a list of them. Return a list with one number or "
                "None for each completion, without yield."
            )
        if not _is_list_of_rewards(values, count):
            raise ValueError(
                f"The reward {name!r} returned {str(values)[:100]!r} for {count} completions, so a run would end. "
                "Return a list with one finite number or None for each completion."
            )
        if wrong := next((column for column, length in logged.items() if length != count), None):
            raise ValueError(
                f"The reward {name!r} logs {logged[wrong]} values in {wrong!r} for {count} completions, so the table "
                "of completions could not be written. Give log_extra one value for each completion."
            )


def _is_list_of_rewards(values: Any, count: int) -> bool:
    try:
        rewards = torch.tensor([torch.nan if value is None else value for value in values])
        return rewards.shape == (count,) and not rewards.isinf().any()
    except (TypeError, ValueError, RuntimeError):
        return False
