"""Parses a recipe and the command line into checked configuration objects."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

import torch
import yaml
from trl import ModelConfig, TrlParser

from ...shared.allocator import use_expandable_segments
from ...shared.nearest import nearest
from ...shared.packages import find_recipe
from ...shared.recipe_yaml import load_yaml, read_yaml
from ...trainer.config import BaseConfig, GBPOConfig, reward_scale
from .arguments import TOOL_TURNS, RunArguments, mapping
from .checks import OTHER_NAMES, RENAMED, check_deepspeed, check_fields, check_fsdp, check_numbers

_NEGATIVE_NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")
_PATH_OR_MAPPING = ("accelerator_config", "deepspeed", "fsdp_config", "environment")
_NOT_GIVEN = object()


@dataclass
class Recipe:
    """A parsed recipe.

    Args:
        path: The YAML file.
        given: Names of the fields that the file or the command line sets.
        run: Data, prompts and rewards.
        training: Configuration of the trainer.
        model: Configuration of the model.
    """

    path: Path
    given: set[str]
    run: RunArguments
    training: BaseConfig
    model: ModelConfig


def parse(argv: Sequence[str]) -> Recipe:
    """Parse `RECIPE [--field value …]`. The command line overrides the recipe.

    Raises:
        ValueError: The file is missing, a field is unknown, or a value cannot be used.
    """
    if not argv or argv[0].startswith("-"):
        raise ValueError("No recipe given. Write: gbpo train RECIPE [--field value …]; 'gbpo recipes' lists recipes.")
    path, flags = find_recipe(argv[0]), list(argv[1:])
    recipe = {str(name).replace("-", "_"): value for name, value in read_yaml(path).items() if value is not None}
    parser = _Parser(_dataclasses(recipe, flags))
    overrides = parser.from_command_line(flags)
    if "dataset_name" in overrides:
        recipe.pop("dataset_kwargs", None)  # these arguments belong to the recipe's own data set
    values = {**parser.from_recipe(recipe), **overrides}
    given = set(values)
    values = {"lora_dropout": 0.0, **values}  # TRL's default is 0.05, and the ratio would see the noise of dropout
    if not torch.accelerator.is_available():
        values = {"use_cpu": True, "bf16": False, **values}
    sleeps, is_split = values.get("vllm_enable_sleep_mode"), values.get("vllm_tensor_parallel_size", 1) != 1
    use_expandable_segments(vllm_needs_fixed=bool(values.get("use_vllm") and (sleeps or is_split)))
    check_numbers({name: value for name, value in values.items() if name in GBPOConfig.__dataclass_fields__})
    check_deepspeed(values.get("deepspeed"))
    check_fsdp(values.get("fsdp"))
    try:
        run, training, model, *_ = parser.parse_dict(values)
    except (ValueError, TypeError, ArithmeticError, ImportError, OSError, NotImplementedError) as error:
        raise _naming_fields(error, values) from None
    training.scale_rewards = reward_scale(training.scale_rewards)
    if training.resume_from_checkpoint is not None:
        word = training.resume_from_checkpoint.lower()
        if word in ("true", "auto", "false", "none"):  # other texts are paths
            training.resume_from_checkpoint = None if word in ("false", "none") else word
    check_fields(given, run, training, model)
    if (run.tools or run.environment) and training.max_tool_calling_iterations is None:
        training.max_tool_calling_iterations = TOOL_TURNS  # TRL's default is no limit
    return Recipe(path, given, run, training, model)


def make_parser() -> argparse.ArgumentParser:
    """A parser that only names what `gbpo train` takes: the recipe and all fields."""
    parser = _Parser([RunArguments, GBPOConfig, ModelConfig])
    parser.add_argument("recipe", help="a YAML file, or the name of a shipped recipe")
    return parser


def _dataclasses(recipe: dict[str, Any], flags: list[str]) -> list[type]:
    """The configuration classes of the algorithm.

    GRPO accepts and ignores the fields that only GBPO has, so that both can run the same recipe.
    """
    selector = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    selector.add_argument("--algorithm", default=recipe.get("algorithm"))
    if selector.parse_known_args(flags)[0].algorithm != "grpo":
        return [RunArguments, GBPOConfig, ModelConfig]
    shared = {f.name for f in fields(BaseConfig)}
    own = [(f.name, f.type, field(default=f.default)) for f in fields(GBPOConfig) if f.name not in shared]
    return [RunArguments, BaseConfig, ModelConfig, make_dataclass("GBPOFields", own)]


class _Parser(TrlParser):
    """Converts given values to the types of the fields. Errors are `ValueError`s that name the field."""

    def __init__(self, classes: list[type]):
        super().__init__(classes, allow_abbrev=False, prog="gbpo train RECIPE")
        self._negative_number_matcher = _NEGATIVE_NUMBER  # argparse would read -1e-6 as an option
        hints = {name: hint for kind in classes for name, hint in get_type_hints(kind).items()}
        self._mappings = {name for name, hint in hints.items() if "dict" in str(hint)}
        self._lists = {name for name, hint in hints.items() if "list[" in str(hint)}
        self._fields: dict[str, argparse.Action] = {}
        for action in self._actions:
            if action.dest in self._mappings:
                action.type = str
            if action.dest != "help":
                self._fields.setdefault(action.dest, action)  # the first is --field; --no_field may follow

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message.rstrip('.')}. Write a value of the field's type.")

    def from_command_line(self, flags: list[str]) -> dict[str, Any]:
        """The given fields with their values converted to the types of the fields."""
        namespace = argparse.Namespace(**dict.fromkeys(self._fields, _NOT_GIVEN))
        unknown = self.parse_known_args(flags, namespace)[1]
        if unknown:
            self._refuse_unknown_flag(unknown, flags)
        given = {name: value for name, value in vars(namespace).items() if value is not _NOT_GIVEN}
        return {name: self._mapping(name, value) for name, value in given.items()}

    def from_recipe(self, recipe: dict[str, Any]) -> dict[str, Any]:
        """The fields of a recipe with their values converted to the types of the fields."""
        return {name: self._converted(name, value) for name, value in recipe.items()}

    def _converted(self, name: str, value: Any) -> Any:
        if name not in self._fields:
            raise self._unknown_field(name)
        action = self._fields[name]
        takes_list = name in self._lists
        if isinstance(value, dict) and name in self._mappings:
            return value
        for kind, word in ((list, "list"), (dict, "mapping")):
            if isinstance(value, kind) and not (takes_list and kind is list):
                if name in self._mappings:
                    raise ValueError(f"{name}={value} is a {word}, but {name} is a mapping. Write {{key: value}}.")
                raise ValueError(
                    f"{name}={value} is a {word}, but {name} takes one value. Write one; put a text that begins with a "
                    "bracket in quotes."
                )
        try:
            if takes_list and isinstance(value, str) and value.startswith("["):
                value = _list(action, value)
            if isinstance(value, list):
                return [self._scalar(action, item) for item in value]
            converted = self._mapping(name, self._scalar(action, value))
            return [converted] if action.nargs in ("+", "*") else converted
        except argparse.ArgumentError as error:
            self.error(str(error))

    def _get_values(self, action, arg_strings):
        """The value of a field on the command line. A list can also be written as in a recipe: `[1.0, 0.5]`."""
        if action.dest in self._lists and len(arg_strings) == 1 and arg_strings[0].startswith("["):
            return [self._scalar(action, item) for item in _list(action, arg_strings[0])]
        return super()._get_values(action, arg_strings)

    def _get_value(self, action, arg_string):
        """Convert one text. `true` and `false` become booleans for `fsdp`, which also takes other texts."""
        word = arg_string.lower()
        if action.const is True and action.type is str and word in ("true", "false"):
            return word == "true"
        return super()._get_value(action, arg_string)

    def _scalar(self, action: argparse.Action, value: Any) -> Any:
        """Convert a YAML value in the same way as text on the command line. PyYAML reads 1e-6 as text, for example."""
        if value is False and "no" in (action.choices or ()):  # YAML reads no as false
            value = "no"
        converted = self._get_value(action, str(value))
        self._check_value(action, converted)
        return converted

    def _mapping(self, name: str, value: Any) -> Any:
        """Text for a field that takes a mapping, read as JSON or YAML. Some of these fields also take a path."""
        if name not in self._mappings or (name in _PATH_OR_MAPPING and not value.lstrip().startswith("{")):
            return value
        return mapping(name, value)

    def _unknown_field(self, name: str) -> ValueError:
        if name in RENAMED:
            return ValueError(RENAMED[name])
        return ValueError(
            f"Unknown field {name!r} in the recipe or on the command line. Did you mean "
            f"{OTHER_NAMES.get(name) or nearest(name, self._fields)!r}?"
        )

    def _refuse_unknown_flag(self, unknown: list[str], flags: list[str]) -> NoReturn:
        for word in unknown:
            if word.startswith("--"):
                raise self._unknown_field(_field_name(word))
        if _field_name(unknown[0]) in self._fields:
            raise ValueError(
                f"{unknown[0]!r} has no dashes, so it sets no field. Write --{unknown[0]}, or put the text that it "
                "belongs to in quotes."
            )
        before = [flag for flag in flags[: flags.index(unknown[0])] if flag.startswith("--")]
        field_name = _field_name(before[-1]) if before else "the recipe"
        raise ValueError(
            f"{unknown[0]!r} follows {field_name}, which takes one value. Remove {unknown[0]!r}, or put the whole "
            "value in quotes."
        )


def _list(action: argparse.Action, text: str) -> list[Any]:
    """The items of a list that is written as JSON or YAML."""
    try:
        return load_yaml(text)
    except yaml.YAMLError:
        raise argparse.ArgumentError(action, f"{text!r} is not a list, write [value, value]") from None


def _field_name(flag: str) -> str:
    return flag.removeprefix("--").split("=")[0].replace("-", "_")


def _naming_fields(error: Exception, values: dict[str, Any]) -> ValueError:
    """Add the values of the given fields that are mentioned to an error of TRL or transformers."""
    text = " ".join(str(error).split())
    if re.search(r"\w+=", text):  # the error already names a field and its value
        return ValueError(text)
    named = [f"{name}={value}" for name, value in values.items() if re.search(rf"\b{name}\b", text)]
    return ValueError(f"{', '.join(named)}: {text.rstrip('.')}. Change or remove it." if named else text)
