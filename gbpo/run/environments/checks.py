"""Checks the environments of a recipe before a model is loaded."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from datasets import Dataset

from ..recipe.arguments import RunArguments
from ..tools.limits import within
from ..tools.named_tools import PYTHON, why_unusable
from .episode import NOT_TOOLS, Episode, close, described, episodes_of, reads_completion, tool_methods
from .kinds import Make, environments

_SECONDS = 60.0  # time limit of each call before the run, in which an environment may load its data

Episodes = dict[str | None, type[Episode]]


def load_episodes(run: RunArguments, train_set: Dataset, eval_set: Dataset | None, *, has_rewards: bool) -> Episodes:
    """The episodes of each environment of a recipe. Empty without an environment.

    Every environment is created twice and reset with rows of the training set.

    Args:
        run: The parsed recipe's own fields.
        train_set: The training set.
        eval_set: The evaluation set, if there is one.
        has_rewards: Whether `reward_funcs` names rewards.

    Raises:
        ValueError: An environment cannot be used.
    """
    makes = environments(run)
    if makes and PYTHON in (run.tools or ()):
        raise ValueError(
            f"tools: {PYTHON} has variables for each completion, which take the place of the environment. Remove it, "
            "or remove environment."
        )
    if makes and None not in makes:
        for dataset in filter(None, (train_set, eval_set)):
            _check_column(makes, dataset)
    episodes: Episodes = {}
    for name, make in makes.items():
        where = "environment" if name is None else f"environment {name!r}"
        example, other = (_tried(where, "creating it", make) for _ in range(2))
        _check_methods(where, example)
        _check_reset(where, example, other, first_rows(name, train_set))
        if not (has_rewards or hasattr(example, "get_reward")):
            raise ValueError(
                f"{where}: {type(example).__name__} has no method get_reward and reward_funcs is missing, so no "
                "completion would have a reward. Add get_reward, or write reward_funcs."
            )
        for environment in (example, other):
            close(environment)  # a server may have few sessions
        episodes[name] = episodes_of(name or type(example).__name__, make, example, run.tool_timeout)
    return episodes


def _check_column(makes: Mapping[str | None, Make], dataset: Dataset) -> None:
    """Raise `ValueError` if the column `environment` does not name one of several environments in every row."""
    names = [str(name) for name in makes]
    if "environment" not in dataset.column_names:
        raise ValueError(
            f"environment has {', '.join(names)}, but the data set has no column 'environment' that says which of them "
            f"a row uses, only {', '.join(dataset.column_names)}. Add the column, for example with dataset_columns."
        )
    for row, value in enumerate(dataset["environment"]):
        if value not in makes:
            raise ValueError(
                f"Row {row} has environment={value!r}, which the recipe does not define: it has {', '.join(names)}. "
                "Correct the row, or add the environment to the recipe."
            )


def first_rows(name: str | None, dataset: Dataset) -> list[dict[str, Any]]:
    """The first two rows of an environment, as TRL passes them to `reset`."""
    if name is None:
        return [dict(dataset[row]) for row in range(min(2, len(dataset)))]
    own = [row for row, value in enumerate(dataset["environment"]) if value == name][:2]
    return [{key: value for key, value in dataset[row].items() if key != "environment"} for row in own]


def _tried(where: str, what: str, call: Callable[[], Any]) -> Any:
    try:
        return within(_SECONDS, call)
    except Exception as error:  # an environment may raise any error
        raise ValueError(f"{where}: {described(what, error)}, so no episode could begin. Correct it.") from None


def _check_methods(where: str, example: Any) -> None:
    name = type(example).__name__
    if not callable(getattr(type(example), "reset", None)):
        raise ValueError(
            f"{where}: {name} has no method reset, so episodes could not begin anew. Write def reset(self, **row), "
            "which gets the columns of a row and returns text for the prompt, or None."
        )
    tools = tool_methods(example)
    if not (tools or reads_completion(example)):
        raise ValueError(
            f"{where}: {name} has no public method besides {', '.join(NOT_TOOLS)}, so the model could do nothing. Add "
            "a method for each action, or write get_reward(self, completion)."
        )
    for method in tools:
        if problem := why_unusable(getattr(example, method)):
            raise ValueError(f"{where}: {name}.{method} {problem}")


def _check_reset(where: str, example: Any, other: Any, rows: list[dict[str, Any]]) -> None:
    """Raise `ValueError` if `reset` does not take the rows, or does not depend on the row alone."""
    if not rows:
        return
    columns = ", ".join(rows[0])
    taken = inspect.signature(example.reset).parameters.values()
    needed = (
        one.name
        for one in taken
        if one.default is one.empty and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    )
    missing = next((name for name in needed if name not in rows[0]), None)
    if missing is not None:
        raise ValueError(
            f"{where}: reset needs {missing!r}, but the data set has no such column, only {columns}. Add or rename the "
            "column, for example with dataset_columns, or give the argument a default value."
        )
    try:
        inspect.signature(example.reset).bind(**rows[0])
    except TypeError as error:
        raise ValueError(
            f"{where}: reset does not accept the columns {columns}: {error}. Write def reset(self, **row)."
        ) from None
    # the second row comes between, because instances are used for many episodes
    began = [
        _tried(where, "reset", lambda: environment.reset(**row))  # noqa: B023 called at once
        for environment, row in ((example, rows[0]), (example, rows[-1]), (example, rows[0]), (other, rows[0]))
    ]
    wrong = next((text for text in began if not (text is None or isinstance(text, str))), None)
    if wrong is not None:
        raise ValueError(
            f"{where}: reset returns {wrong!r}, which cannot be added to the prompt. Return a text, or None."
        )
    if not began[0] == began[2] == began[3]:
        raise ValueError(
            f"{where}: reset returns {began[0]!r} and then {(began[2], began[3])[began[0] == began[2]]!r} for the same "
            "row, so the completions of a group would have different tasks, and a resumed run would differ. Derive "
            "everything random from the row, for example from its column seed."
        )
    content = rows[0]["prompt"] if isinstance(rows[0]["prompt"], str) else rows[0]["prompt"][-1]["content"]
    if not content and not began[0]:
        raise ValueError(
            f"{where}: the prompt is empty and reset returns {began[0]!r}, so the model would not know its task. "
            "Return the task from reset, or give a data set with prompts."
        )
