"""The rewards that a recipe names. Importing this file loads neither torch nor TRL."""

import inspect
from collections.abc import Callable
from typing import Any

from datasets import Dataset

from .data.loading import PASSED_BY_TRL, REASONING_GYM
from .recipe.arguments import RunArguments
from .rewards_package import rewards_module

# rewards with the option `max_completion_length`, which is by default the limit of the completions
LIMITED_REWARDS = {"cosine", "soft_overlong"}


def load_rewards(
    run: RunArguments, dataset: Dataset, max_completion_length: int, eval_set: Dataset | None = None
) -> list[Callable[..., Any]]:
    """Create the rewards of a recipe, and check that the data sets have the columns they read.

    Args:
        run: The reward fields of the recipe.
        dataset: The training set.
        max_completion_length: Maximum number of tokens per completion, for the rewards that have it as an option.
        eval_set: The evaluation set, if there is one.

    Raises:
        ValueError: A reward or an option is unknown, or a column is missing.
    """
    package = rewards_module()
    rewards = []
    sets = {run.dataset_name: dataset}
    if eval_set is not None:
        sets.setdefault(run.eval_dataset_name or f"{run.dataset_name}, split {run.dataset_test_split}", eval_set)
    for name, options in named_rewards(run).items():
        limit = {"max_completion_length": max_completion_length} if name in LIMITED_REWARDS else {}
        reward = package.get_reward(name, **limit | options)
        if "completion" in columns_read(reward):
            raise ValueError(
                f"The reward {name!r} has the parameter 'completion', which no column fills. Write completions: a "
                "reward gets all of them in a list."
            )
        for data_name, data in sets.items():
            for column in columns_read(reward):
                if column not in data.column_names:
                    raise ValueError(
                        f"The reward {name!r} reads the column {column!r}, but {data_name!r} has "
                        f"{', '.join(data.column_names)}. Rename a column, for example "
                        f"dataset_columns: {{answer: {column}}}."
                    )
        rewards.append(reward)
    return rewards


def named_rewards(run: RunArguments) -> dict[str, dict[str, Any]]:
    """The options of each reward, by its name. A reasoning-gym task has its own reward as the default.

    The options of the reward `reasoning_gym` default to those of the task in the data set.

    Raises:
        ValueError: No reward is named, `reward_funcs` names one twice, or `reward_kwargs` names a reward that
            `reward_funcs` does not list.
    """
    names, options = run.reward_funcs or [], dict(run.reward_kwargs)
    is_task = run.dataset_name.startswith(REASONING_GYM)
    if is_task and not names and not run.environment:
        names = ["reasoning_gym"]
    if is_task and "reasoning_gym" in names and isinstance(options.get("reasoning_gym") or {}, dict):
        task = {"task": run.dataset_name.removeprefix(REASONING_GYM), **run.dataset_kwargs}
        options["reasoning_gym"] = task | (options.get("reasoning_gym") or {})
    if not names and not run.environment:  # an environment may have its own reward
        raise ValueError("reward_funcs is missing: write a reward's name, for example reward_funcs: [math].")
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ValueError(
            f"reward_funcs={names} names {twice[0]!r} more than once, but it would count once. Write it once; "
            "reward_weights says how much it counts."
        )
    unused = set(options) - set(names)
    if unused:
        raise ValueError(f"reward_kwargs names {', '.join(sorted(unused))}, which reward_funcs does not list.")
    for name, given in options.items():
        if given is not None and not isinstance(given, dict):
            raise ValueError(
                f"reward_kwargs gives {name} {given!r}, but options are a mapping. Write {{option: value}}."
            )
    return {name: options.get(name) or {} for name in names}


def columns_read(reward: Callable[..., Any]) -> list[str]:
    """The parameters of a reward that are filled from columns of the data set."""
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [
        name
        for name, parameter in inspect.signature(reward).parameters.items()
        if parameter.kind in kinds and parameter.default is parameter.empty and name not in PASSED_BY_TRL
    ]
