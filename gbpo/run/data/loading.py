"""Loads the data sets of a recipe and gives them the columns that the trainer and the rewards read."""

import dataclasses
import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import transformers
from datasets import Dataset, load_dataset
from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars

from ..recipe.arguments import EPISODES, VERIFIERS, RunArguments
from ..rewards_package import rewards_module
from . import images
from .arithmetic import arithmetic
from .chains import chains
from .episodes import EMPTY_PROMPT, episodes
from .messages import read_prompts
from .programs import programs
from .shapes import shapes
from .verifiers_tasks import UnusableTasksetError, open_tasks, rows_of

_TASKS: dict[str, Callable[..., Dataset]] = {
    "arithmetic": arithmetic,
    "chains": chains,
    "programs": programs,
    "shapes": shapes,
    EPISODES: episodes,
}
_BUILTIN = "builtin:"  # may precede the name of a generated task
REASONING_GYM = "reasoning_gym:"

# arguments that TRL passes to every reward in addition to the columns of the data set
PASSED_BY_TRL = (
    "prompts",
    "completions",
    "completion_ids",
    "trainer_state",
    "log_extra",
    "log_metric",
    "environments",
)
# names of columns that no reward could read: the trainer's arguments, and a column that TRL passes to no reward
_RESERVED = (*PASSED_BY_TRL, "extra_votes", "completion")


def quiet() -> None:
    """Switch off telemetry, progress bars and warnings that a user cannot act on."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    datasets.disable_progress_bars()
    downloads_are_hidden = are_progress_bars_disabled()
    transformers.utils.logging.disable_progress_bar()  # hides downloads from the Hub too, which can take minutes
    if not downloads_are_hidden:
        enable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # errors are raised with one line of their own
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|trl")


def is_generated(name: str) -> bool:
    """Whether `name` is the name of a generated task."""
    return _task(name) is not None


def is_local(name: str) -> bool:
    """Whether `name` is a local file or folder and not the id of a data set on the Hub. Not for generated tasks."""
    path = Path(name).expanduser()
    known = path.suffix in rewards_module("shared.data_files").FILE_FORMATS
    return known or name.startswith((".", "/", "~")) or path.exists()


def load(run: RunArguments, *, evaluation: bool) -> tuple[Dataset, Dataset | None]:
    """Load the training set and, if asked for, the evaluation set, with the columns that the recipe asks for.

    What was changed in the data is printed, each line once.

    Args:
        run: The data fields of the recipe.
        evaluation: Whether to load the evaluation set.

    Returns:
        The training set, and the evaluation set or None.

    Raises:
        ValueError: A file or column is missing, the task does not accept `dataset_kwargs`, a set has zero rows, or a
            prompt cannot be read.
    """
    train, notes = _prepared(_load_split(run, run.dataset_train_split), run, run.dataset_name)
    evaluated = None
    if evaluation:
        name = run.eval_dataset_name or run.dataset_name
        evaluated, others = _prepared(held_out(run, len(train)), run, name)
        notes += [note for note in others if note not in notes]
    for note in notes:
        announce(note)
    return train, evaluated


def announce(note: str) -> None:
    """Print a line about the data, once for all processes."""
    if os.environ.get("RANK", "0") == "0":
        print(f"gbpo: note: {note}", file=sys.stderr, flush=True)


def held_out(run: RunArguments, size: int) -> Dataset:
    """Load the evaluation set: `eval_dataset_name` if it is given, else the test split of the data set.

    A generated task has no splits. There the evaluation set is the next `size` problems of its sequence, without
    duplicates and without problems of the training set.

    Args:
        run: The data fields of the recipe.
        size: Number of rows of the training set.
    """
    if run.eval_dataset_name:
        other = dataclasses.replace(run, dataset_name=run.eval_dataset_name, dataset_kwargs={})
        return _load_split(other, other.dataset_train_split, field="eval_dataset_name")
    make = _task(run.dataset_name)
    if make is None:
        return _load_split(run, run.dataset_test_split)
    problems = _generated(make, run, size=2 * size)
    first_row = {key: row for row, key in reversed([*enumerate(images.prompt_keys(problems))])}
    return problems.select(sorted(row for row in first_row.values() if row >= size))


def _task(name: str) -> Callable[..., Dataset] | None:
    """The function that generates a task. None if the name is not a generated task."""
    if name.startswith(REASONING_GYM):
        return partial(_reasoning_gym, name.removeprefix(REASONING_GYM))
    if name.startswith(VERIFIERS):
        return rows_of
    return _TASKS.get(name.removeprefix(_BUILTIN))


def _load_split(run: RunArguments, split: str, *, field: str = "dataset_name") -> Dataset:
    name = run.dataset_name
    make = _task(name)
    if (make is not None or is_local(name)) and run.dataset_config is not None:
        raise ValueError(
            f"dataset_config={run.dataset_config!r} would be ignored: {name!r} is not a data set of the Hub. Remove "
            "dataset_config."
        )
    if make is not None:
        return _generated(make, run)
    if run.dataset_kwargs:
        raise ValueError(
            f"dataset_kwargs={run.dataset_kwargs} would be ignored: {name!r} is not a generated task. Remove "
            "dataset_kwargs, or write dataset_name: arithmetic, chains, programs, builtin:shapes or "
            "reasoning_gym:<task>."
        )
    if is_local(name):
        path = Path(name).expanduser()
        if "[" in split and field == "dataset_name":  # the split of a data set of the Hub may be a part
            raise ValueError(
                f"The split {split!r} would be ignored: {name!r} is a file, and all of its rows are read. Remove the "
                "split, and write a smaller file."
            )
        if split != run.dataset_train_split and path.is_file():
            raise ValueError(
                f"The evaluation needs a split {split!r}, but {str(path)!r} is one file. Write eval_dataset_name: "
                "another_file.jsonl, or name a data set with splits. Training alone, without eval_strategy, needs none."
            )
        try:
            return rewards_module("shared.data_files").load_file(path)
        except ValueError as error:
            raise ValueError(f"{field}={error}") from None
    try:
        return load_dataset(name, run.dataset_config, split=split)
    except Exception as error:  # the Hub client raises many types of errors
        raise ValueError(
            f"{field}={name!r}, split {split!r}, could not be loaded from the Hub: {_one_line(error)} "
            "Check the name and the connection, or give a local file."
        ) from None


def _generated(make: Callable[..., Dataset], run: RunArguments, **changed: Any) -> Dataset:
    kwargs = {**run.dataset_kwargs, **changed}
    if run.dataset_name.startswith(VERIFIERS):
        make = partial(make, open_tasks(run.dataset_name, run.environment_kwargs))
    if run.dataset_name == EPISODES and isinstance(run.environment, dict):
        kwargs.setdefault("environments", [*run.environment])
    try:
        return make(**kwargs)
    except UnusableTasksetError:
        raise
    except (TypeError, AssertionError, ValueError) as error:
        raise ValueError(f"dataset_kwargs={kwargs} do not fit {run.dataset_name!r}: {_one_line(error)}") from None


def _reasoning_gym(task: str, size: int = 2048, seed: int = 0, **kwargs: Any) -> Dataset:
    """Questions of a reasoning-gym task. Its scorer needs the column `index` to find the question of a completion."""
    try:
        import reasoning_gym
    except ImportError:
        raise ImportError(
            f"dataset_name='reasoning_gym:{task}' needs the package reasoning-gym, which is not installed: "
            "pip install reasoning-gym."
        ) from None
    reasoning_gym.create_dataset(task, size=size, seed=seed, **kwargs)  # raises an error if the arguments do not fit
    gym = rewards_module("answers.reasoning_gym")
    made = gym.questions(gym.spec_of(task, seed, size, **kwargs), size)
    return Dataset.from_dict(
        {
            "prompt": [question for question, _ in made],
            "solution": [answer for _, answer in made],
            "index": list(range(size)),
        }
    )


def _prepared(dataset: Dataset, run: RunArguments, name: str) -> tuple[Dataset, list[str]]:
    """The data set with the columns that the recipe asks for, and one line for each change of the data."""
    if len(dataset) == 0:
        raise _zero_rows(name)
    try:
        dataset, notes = rewards_module("shared.columns").rename_columns(dataset, run.dataset_columns)
        dataset, others = rewards_module("shared.extraction").extract(dataset, run.dataset_extract)
    except ValueError as error:
        raise ValueError(f"{name!r}: dataset_{error}") from None
    notes = [f"dataset_{note}" for note in notes + others]
    if run.environment and "prompt" not in dataset.column_names:  # the environment completes the empty prompts
        dataset = rewards_module("shared.columns").with_column(dataset, "prompt", [EMPTY_PROMPT] * len(dataset))
    columns = dataset.column_names
    if "tests" in columns and "code" in (run.reward_funcs or []):
        try:
            dataset, others = rewards_module("programs.suites.rows").read_suites(dataset)
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from None
        notes += others
    if "prompt" not in columns:
        raise ValueError(
            f"{name!r} has no column 'prompt', only {', '.join(columns)}. Name the column with the prompts, for "
            f"example dataset_columns: {{{columns[0]}: prompt}}."
        )
    places = None
    if run.image_column is not None:
        path = Path(name).expanduser()
        dataset, others = images.use_images(dataset, run.image_column, path.parent if path.is_file() else path, name)
        notes += others
        places = images.counts(dataset)
        columns = dataset.column_names
    elif column := images.column_of(dataset):
        raise ValueError(
            f"{name!r} has a column {column!r}, but there is no image_column: the model would see the text only. Write "
            f"image_column: {column}, or rename the column, for example dataset_columns: {{{column}: picture}}."
        )
    reserved = [column for column in _RESERVED if column in columns]
    notes += [
        f"The column {column!r} is left out, because the trainer has its own argument of this name. To read the column "
        f"in a reward, rename it, for example dataset_columns: {{{column}: my_{column}}}."
        for column in reserved
    ]
    dataset, others = read_prompts(dataset.remove_columns(reserved), name, places)
    return dataset, notes + others


def _zero_rows(name: str) -> ValueError:
    return ValueError(f"dataset_name={name!r} has zero rows: there is nothing to train on. Give a set with prompts.")


def _one_line(error: Exception) -> str:
    return " ".join(str(error.__cause__ or error).split())[:300]
