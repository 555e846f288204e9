"""From a recipe and the command line to checked configuration objects."""

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import torch
from trl import ModelConfig, TrlParser

from ...shared.recipe_yaml import nearest, read_yaml
from ...trainer.config import BaseConfig, GBPOConfig, reward_scale
from .arguments import RunArguments, mapping
from .checks import check_deepspeed, check_fields

# mappings of the trainer's configuration, which it reads as JSON alone
_KWARGS = (
    "model_init_kwargs",
    "generation_kwargs",
    "chat_template_kwargs",
    "lr_scheduler_kwargs",
    "activation_checkpointing_kwargs",
)
_NEGATIVE_NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")


@dataclass
class Recipe:
    """A parsed recipe: where it stands, what it said, and the configuration that follows."""

    path: Path
    given: set[str]
    run: RunArguments
    training: BaseConfig
    model: ModelConfig


def parse(argv: Sequence[str]) -> Recipe:
    """Parse `RECIPE [--field value …]`; the command line wins over the recipe.

    Raises:
        ValueError: For a missing file, an unknown field (with the nearest known one) or a value without meaning.
    """
    if not argv or argv[0].startswith("-"):
        raise ValueError("No recipe given. Write: launch/gbpo.py RECIPE.yaml [--field value …]")
    path = Path(argv[0]).expanduser()
    recipe, overrides = read_yaml(path, "recipes/tiny_math.yaml"), list(argv[1:])
    if "dataset_name" in _names(overrides):
        recipe.pop("dataset_kwargs", None)  # they belong to the recipe's own data set
    flags = _as_flags(recipe) + overrides
    parser = _Parser(_dataclasses(flags), allow_abbrev=False)
    _check_shapes(parser, recipe)
    _refuse_unknown(parser, flags)
    given = _names(flags)
    if not torch.accelerator.is_available():
        defaults = {"use_cpu": True, "bf16": False}
        flags = [*_as_flags({name: value for name, value in defaults.items() if name not in given}), *flags]
    check_deepspeed(_values(flags).get("deepspeed"))
    try:
        run, training, model, *_ = parser.parse_args_into_dataclasses(_with_json(flags))
    except (ValueError, TypeError, ArithmeticError, ImportError, OSError, NotImplementedError) as error:
        raise _naming_fields(error, flags) from None
    training.scale_rewards = reward_scale(training.scale_rewards)
    if training.resume_from_checkpoint is not None:
        word = training.resume_from_checkpoint.lower()
        if word in ("true", "auto", "false", "none"):  # as YAML and people spell them
            training.resume_from_checkpoint = None if word in ("false", "none") else word
    check_fields(given, run, training, model)
    return Recipe(path, given, run, training, model)


class _Parser(TrlParser):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._negative_number_matcher = _NEGATIVE_NUMBER

    def error(self, message: str):
        raise ValueError(f"{message}. Write a value of the field's type.")


def _as_flags(recipe: dict[str, Any]) -> list[str]:
    """The recipe as command-line flags, so that both are checked and converted alike."""
    flags = []
    for name, value in recipe.items():
        if isinstance(value, list):
            flags += [f"--{name}", *map(str, value)]
        elif isinstance(value, dict):
            flags.append(f"--{name}={json.dumps(value)}")
        elif value is not None:
            flags.append(f"--{name}={value}")
    return flags


def _names(flags: Sequence[str]) -> set[str]:
    return {flag.removeprefix("--").split("=")[0].replace("-", "_") for flag in flags if flag.startswith("--")}


def _dataclasses(flags: list[str]) -> list[type]:
    """The configuration classes of the algorithm that the flags name.

    For GRPO the fields that only GBPO has are accepted and unused, so that one recipe runs both.
    """
    selector = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    selector.add_argument("--algorithm", default="gbpo")
    if selector.parse_known_args(flags)[0].algorithm != "grpo":
        return [RunArguments, GBPOConfig, ModelConfig]
    shared = {f.name for f in fields(BaseConfig)}
    own = [(f.name, f.type, field(default=f.default)) for f in fields(GBPOConfig) if f.name not in shared]
    return [RunArguments, BaseConfig, ModelConfig, make_dataclass("GBPOFields", own)]


def _refuse_unknown(parser: _Parser, flags: list[str]) -> None:
    known = [action.dest for action in parser._actions]
    unknown = parser.parse_known_args(flags)[1]
    if not unknown:
        return
    if name := next(iter(_names(unknown)), None):
        raise ValueError(
            f"Unknown field {name!r} in the recipe or on the command line. Did you mean {nearest(name, known)!r}?"
        )
    before = [flag for flag in flags[: flags.index(unknown[0])] if flag.startswith("--")]
    field_name = next(iter(_names(before[-1:])), "the recipe")
    raise ValueError(
        f"{unknown[0]!r} stands after {field_name}, which takes one value. Remove it, or put it in quotes."
    )


def _check_shapes(parser: _Parser, recipe: dict[str, Any]) -> None:
    """Raise `ValueError` for a list or a mapping where the field takes one value."""
    takes_list = {action.dest for action in parser._actions if action.nargs in ("+", "*")}
    hints = {name: hint for kind in parser.dataclass_types for name, hint in get_type_hints(kind).items()}
    takes_mapping = {name for name, hint in hints.items() if "dict" in str(hint)}
    for name, value in recipe.items():
        if isinstance(value, list) and name not in takes_list:
            raise ValueError(f"{name}={value} is a list, and {name} takes one value. Write one.")
        if isinstance(value, dict) and name not in takes_mapping:
            raise ValueError(f"{name}={value} is a mapping, and {name} takes one value. Write one.")


def _values(flags: Sequence[str]) -> dict[str, str]:
    """The given fields with their values as text."""
    values: dict[str, str] = {}
    name = ""
    for flag in flags:
        if flag.startswith("--"):
            name, _, value = flag[2:].partition("=")
            name = name.replace("-", "_")
            values[name] = value
        else:
            values[name] = f"{values[name]} {flag}".strip()
    return values


def _with_json(flags: Sequence[str]) -> list[str]:
    """The flags with the mappings that the trainer takes as JSON, whether they were written as JSON or as YAML."""
    rest: list[str] = []
    for flag in flags:
        if flag.startswith("--") or not rest or rest[-1].partition("=")[0][2:].replace("-", "_") not in _KWARGS:
            rest.append(flag)
        else:
            rest[-1] += f"={flag}"
    return [_json(flag) for flag in rest]


def _json(flag: str) -> str:
    option, _, value = flag.partition("=")
    name = option.removeprefix("--").replace("-", "_")
    return f"--{name}={json.dumps(mapping(name, value))}" if option.startswith("--") and name in _KWARGS else flag


def _naming_fields(error: Exception, flags: Sequence[str]) -> ValueError:
    """An error of TRL's or transformers' configuration, with the given fields that it speaks of and their values."""
    text = " ".join(str(error).split())
    if re.search(r"\w+=", text):  # names a field and its value by itself
        return ValueError(text)
    values = _values(flags)
    named = [f"{name}={values[name]}" for name in values if re.search(rf"\b{name}\b", text)]
    return ValueError(f"{', '.join(named)}: {text} Change or remove it." if named else text)
