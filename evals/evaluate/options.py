"""The options of the command line, and how they and the settings of a run or recipe give those of an evaluation."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any, get_type_hints

from gbpo.run.recipe.arguments import RunArguments, mapping
from gbpo.shared.command_line import OneLineErrorParser, OneScreenHelp
from gbpo.shared.packages import find_recipe

from .origin import Origin, is_model, origin_of_model, origin_of_recipe
from .settings import ENGINES, QUESTION_FIELDS, SAMPLING, Settings

# torch, transformers and datasets are imported only after the arguments have been checked.

# field of a recipe → other names of its option
_SHORT = {"dataset_columns": "--columns", "dataset_extract": "--extract", "dataset_train_split": "--split"}
# fields whose text of a recipe is about training
_QUESTION_HELP = {"dataset_train_split": "split of a Hub data set to evaluate on"}
# setting of the sampling → field of the trainer
_OF_TRAINER = {"temperature": "temperature", "top_p": "top_p", "max_tokens": "max_completion_length"}
_OF_TRAINER |= {"tool_turns": "max_tool_calling_iterations"}
_DEFAULT_REWARD = "reasoning_gym"  # of a reasoning-gym task
_SAMPLING_HELP = {
    "samples": "completions per question",
    "temperature": "sampling temperature",
    "top_p": "nucleus sampling",
    "max_tokens": "maximum number of tokens per completion",
    "seed": "seed of the sampling",
    "batch_size": "completions per batch",
    "tool_turns": "turns that may call tools or act",
}


def parser(description: str | None) -> OneLineErrorParser:
    """The parser of the command. Options that are not given are None."""
    made = OneLineErrorParser(
        prog="gbpo evaluate",
        usage="%(prog)s MODEL [MODEL ...] [DATASET] [--reward NAME] [options]",
        description=description,
        formatter_class=OneScreenHelp,
        allow_abbrev=False,
        without="Without a model there is nothing to evaluate. Write gbpo evaluate runs/tiny_math, for example.",
    )
    add, defaults = made.add_argument, {one.name: one.default for one in dataclasses.fields(Settings)}
    add("names", nargs="+", metavar="MODEL", help="models or runs, and a data set at the end")
    add("--recipe", type=find_recipe, metavar="FILE", help="recipe with the default settings")
    add("--reward", metavar="NAME", help="name or dotted path of the reward (the run's)")
    add("--reward_kwargs", metavar="X", help="options of the reward: '{\"workers\": 4}'")
    hints = get_type_hints(RunArguments)
    for field in dataclasses.fields(RunArguments):
        if field.name in QUESTION_FIELDS and field.name != "dataset_name":
            names = [_SHORT[field.name]] if field.name in _SHORT else [f"--{field.name}"]
            kind = {int | None: int, float: float}.get(hints[field.name], str)
            text = field.metadata["help"]
            text = _QUESTION_HELP.get(field.name, text[0].lower() + text[1:].rstrip("."))
            add(*names, dest=field.name, type=kind, metavar="X", help=text)
            if field.name in _SHORT:  # the name of the field in a recipe works too
                add(f"--{field.name}", dest=field.name, type=kind, help=argparse.SUPPRESS)
    add("--chat_template_kwargs", metavar="X", help="variables of the template: {enable_thinking: false}")
    for name, text in _SAMPLING_HELP.items():
        value = defaults[name]
        kind = int if value is None else type(value)
        text += " (no limit)" if value is None else f" ({value})"
        add(f"--{name}", type=kind, metavar="N" if kind is int else "X", help=text)
    add("--engine", choices=ENGINES, metavar="NAME", help=f"{', '.join(ENGINES)} (auto)")
    add("--reference", metavar="MODEL", help="model for the KL divergence (none)")
    add("--output", type=Path, metavar="FILE.json", help="file to write the results to (none)")
    add("--no_cache", action="store_true", help="evaluate again even if the result is cached")
    return made


def models_and_data_set(names: list[str]) -> tuple[list[str], str | None]:
    """Split the names of the command line into models and the data set, which is None if the last name is a model."""
    return (names, None) if len(names) == 1 or is_model(names[-1]) else (names[:-1], names[-1])


def find_origin(models: list[str], options: argparse.Namespace) -> Origin | None:
    """Where the settings that are not given come from: the recipe, or the run of the first model that has one.

    Raises:
        ValueError: Two runs have trained with other prompts, so no settings fit both.
    """
    if options.recipe is not None:
        return origin_of_recipe(options.recipe)
    origins = [origin for origin in map(origin_of_model, models) if origin is not None]
    for other in origins[1:]:
        for name, value in other.prompts.items():
            first = origins[0].prompts[name]
            if value != first and getattr(options, name) is None:
                raise ValueError(
                    f"{origins[0].path} has {name}={first!r}, but {other.path} has {name}={value!r}: one of the models "
                    f"would be tested with other prompts than it was trained with. Evaluate them one by one, or give "
                    f"--{name}."
                )
    return origins[0] if origins else None


def settings_of(options: argparse.Namespace, data_set: str | None, origin: Origin | None) -> Settings:
    """The settings of the evaluation.

    Args:
        options: The parsed command line.
        data_set: The data set, if it is given.
        origin: Where the settings that are not given come from.

    Raises:
        ValueError: A setting cannot be used, or there is neither a data set nor an origin.
    """
    values = {} if origin is None else origin.values
    given = {name: value for name in QUESTION_FIELDS if (value := getattr(options, name, None)) is not None}
    questions = {name: values[name] for name in QUESTION_FIELDS if name in values}
    questions |= _evaluation_set(options, data_set, origin) | given
    acts = bool(questions.get("environment"))
    reward = options.reward or (None if acts else _first_reward(values))  # an environment has its own reward
    if reward is None and not acts and not questions["dataset_name"].startswith(f"{_DEFAULT_REWARD}:"):
        raise ValueError("No reward is given, so nothing can be graded. Write --reward, for example --reward math.")
    graded_by = reward or ("" if acts else _DEFAULT_REWARD)
    kwargs = mapping("reward_kwargs", options.reward_kwargs)
    if reward in kwargs:
        raise ValueError(
            f"reward_kwargs={kwargs} names the reward, but this command has one reward. Write its options alone: "
            f"--reward_kwargs '{json.dumps(kwargs[reward])}'."
        )
    if options.reward_kwargs is None:
        kwargs = mapping("reward_kwargs", values.get("reward_kwargs")).get(graded_by) or {}
    elif kwargs and reward is None:
        raise ValueError(f"reward_kwargs={kwargs} has no effect without a reward. Write --reward.")
    run = RunArguments(
        **questions,
        reward_funcs=None if reward is None else [reward],
        reward_kwargs={graded_by: kwargs} if kwargs and graded_by else {},
    )
    sampling = {name: value for name, field in _OF_TRAINER.items() if (value := values.get(field)) is not None}
    sampling |= {name: value for name in SAMPLING if (value := getattr(options, name)) is not None}
    template_kwargs = options.chat_template_kwargs or values.get("chat_template_kwargs")
    return Settings(run, mapping("chat_template_kwargs", template_kwargs), **sampling)


def sources(settings: Settings, options: argparse.Namespace, data_set: str | None, origin: Origin) -> str:
    """One line that says which settings come from the run or recipe, and which of them the command line replaces."""
    given = {name: value for name, value in vars(options).items() if value is not None}
    given |= {"reward_funcs": options.reward} if options.reward is not None else {}
    given |= {"dataset_name": data_set} if data_set is not None else {}
    fields = settings.as_dict()
    known = {
        name: value
        for name, value in fields.items()
        if _OF_TRAINER.get(name, name) in origin.values
        and value not in (None, {}, [])
        and not (name == "dataset_train_split" and Path(fields["dataset_name"] or "").is_file())  # a file has no splits
    }
    parts = {
        f"from {origin.path}": {name: value for name, value in known.items() if name not in given},
        "from the command line": {name: value for name, value in known.items() if name in given},
    }
    listed = {place: ", ".join(f"{name}={value!r}" for name, value in part.items()) for place, part in parts.items()}
    return "; ".join(f"{place}: {text}" for place, text in listed.items() if text)


def _first_reward(values: dict[str, Any]) -> str | None:
    """The reward of a run that tells right from wrong answers. None if it names none.

    Raises:
        ValueError: It is the majority vote.
    """
    names = values.get("reward_funcs") or [None]
    name = names if isinstance(names, str) else names[0]  # a recipe may contain one name
    if name == "majority_vote":
        raise ValueError(
            "reward_funcs=['majority_vote'] rewards the most common answer even if it is wrong, so it does not test "
            "the model. Write --reward, for example --reward math."
        )
    return name


def _evaluation_set(options: argparse.Namespace, data_set: str | None, origin: Origin | None) -> dict[str, Any]:
    """The fields of a recipe that name the questions."""
    if data_set is None and origin is None:
        raise ValueError(
            f"No run of gbpo has written {', '.join(map(repr, options.names))}, and no data set is given, so there is "
            "nothing to evaluate on. Give the output folder of a run, such as runs/tiny_math, or write the data set "
            "last."
        )
    values = {} if origin is None else origin.values
    if data_set is not None and data_set != values.get("dataset_name"):
        return {"dataset_name": data_set, "dataset_config": None, "dataset_train_split": "test", "dataset_kwargs": {}}
    if data_set is None and values.get("eval_dataset_name"):
        return {"dataset_name": values["eval_dataset_name"], "dataset_kwargs": {}}
    if data_set is None and Path(values["dataset_name"]).expanduser().is_file():
        raise ValueError(
            f"dataset_name={values['dataset_name']!r} is the file of the training, and there is no eval_dataset_name: "
            "the model would be tested on what it was trained on. Write the data set last."
        )
    return {"dataset_train_split": values.get("dataset_test_split") or "test"}
