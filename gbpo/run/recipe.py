"""From a recipe and the command line to checked configuration objects."""

import argparse
import contextlib
import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from trl import GRPOConfig, ModelConfig, TrlParser

from ..config import GBPOConfig, reward_scale

if TYPE_CHECKING:
    Mapping = dict[str, Any]
else:  # what the argument parser hands over; RunArguments makes it a dict
    Mapping = dict | str | None

ALGORITHMS = ("gbpo", "grpo")


@dataclass
class RunArguments:
    """What a run needs beside the trainer's and the model's configuration.

    Args:
        algorithm: `"gbpo"`, or `"grpo"` for TRL's own GRPOTrainer with the same recipe.
        dataset_name: A Hub id, a local `.jsonl`, `.json`, `.parquet` or `.csv` file, or a generated task: `arithmetic`,
            `programs` or `reasoning_gym:<task>`.
        dataset_config: Configuration of a Hub data set.
        dataset_train_split: Split to train on.
        dataset_test_split: Split to evaluate on when `eval_strategy` is set.
        dataset_kwargs: Arguments of a generated task, for example `{size: 2000, seed: 0}`.
        dataset_columns: Columns to rename, for example `{problem: prompt, answer: solution}`.
        system_prompt: System message put before every prompt.
        prompt_template: Text around the prompt, which stands in it as `{prompt}`.
        chat_template_path: File with a Jinja chat template to use in place of the tokenizer's.
        reward_funcs: Names of rewards, or dotted paths of your own.
        reward_kwargs: Configuration by reward name, for example `{math: {workers: 4}}`.
        dry_run: Print what the run would do and exit, without loading the model.
        merge_adapter: With LoRA, write the merged model beside the adapter at the end.
        stop_on_collapse: End the run when entropy, length or reward collapses, instead of warning.
    """

    algorithm: str = field(default="gbpo", metadata={"help": "gbpo, or grpo for TRL's GRPOTrainer."})
    dataset_name: str = field(
        default="",
        metadata={
            "help": "A Hub id, a local jsonl/json/parquet/csv file, arithmetic, programs or reasoning_gym:<task>."
        },
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of a Hub data set."})
    dataset_train_split: str = field(default="train", metadata={"help": "Split to train on."})
    dataset_test_split: str = field(default="test", metadata={"help": "Split to evaluate on."})
    dataset_kwargs: Mapping = field(default_factory=dict, metadata={"help": "Arguments of a generated task."})
    dataset_columns: Mapping = field(
        default_factory=dict, metadata={"help": "Columns to rename, as {problem: prompt, answer: solution}."}
    )
    system_prompt: str | None = field(default=None, metadata={"help": "System message put before every prompt."})
    prompt_template: str | None = field(
        default=None, metadata={"help": "Text around the prompt, which stands in it as {prompt}."}
    )
    chat_template_path: str | None = field(default=None, metadata={"help": "File with a Jinja chat template."})
    reward_funcs: list[str] | None = field(
        default=None, metadata={"help": "Names of rewards, or dotted paths of your own."}
    )
    reward_kwargs: Mapping = field(default_factory=dict, metadata={"help": "Configuration by reward name."})
    dry_run: bool = field(default=False, metadata={"help": "Print what the run would do and exit."})
    merge_adapter: bool = field(default=False, metadata={"help": "Write the merged model beside the LoRA adapter."})
    stop_on_collapse: bool = field(default=False, metadata={"help": "End the run on a collapse, instead of warning."})

    def __post_init__(self):
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"algorithm={self.algorithm!r} is unknown. Write one of {', '.join(ALGORITHMS)}.")
        if not self.dataset_name:
            raise ValueError(
                "dataset_name is missing: write a Hub id, a local file, arithmetic, programs or reasoning_gym:<task>."
            )
        for name in ("dataset_kwargs", "dataset_columns", "reward_kwargs"):
            setattr(self, name, _mapping(name, getattr(self, name)))
        if self.chat_template_path is not None and not Path(self.chat_template_path).expanduser().is_file():
            raise ValueError(
                f"chat_template_path={self.chat_template_path!r} not found. Give the path of a Jinja file."
            )
        if self.prompt_template is not None and "{prompt}" not in self.prompt_template:
            raise ValueError(
                f"prompt_template={self.prompt_template!r} has no {{prompt}}: every prompt would be the same text. "
                "Write {prompt} where the problem goes."
            )


@dataclass
class Recipe:
    """A parsed recipe: where it stands, what it said, and the configuration that follows."""

    path: Path
    given: set[str]
    run: RunArguments
    training: GRPOConfig
    model: ModelConfig


def parse(argv: Sequence[str]) -> Recipe:
    """Parse `RECIPE [--field value …]`; the command line wins over the recipe.

    Raises:
        ValueError: For a missing file, an unknown field (with the nearest known one) or a value without meaning.
    """
    if not argv or argv[0].startswith("-"):
        raise ValueError("No recipe given. Write: launch/gbpo.py RECIPE.yaml [--field value …]")
    path = Path(argv[0]).expanduser()
    recipe, overrides = _read(path), list(argv[1:])
    if "dataset_name" in _names(overrides):
        recipe.pop("dataset_kwargs", None)  # they belong to the recipe's own data set
    flags = _as_flags(recipe) + overrides
    parser = _Parser(_dataclasses(flags), allow_abbrev=False)
    _refuse_unknown(parser, flags)
    given = _names(flags)
    if not torch.accelerator.is_available():
        defaults = {"use_cpu": True, "bf16": False}
        flags = [*_as_flags({name: value for name, value in defaults.items() if name not in given}), *flags]
    run, training, model, *_ = parser.parse_args_into_dataclasses(flags)
    training.scale_rewards = reward_scale(training.scale_rewards)
    if training.resume_from_checkpoint is not None:
        word = training.resume_from_checkpoint.lower()
        if word in ("true", "auto", "false", "none"):  # as YAML and people spell them
            training.resume_from_checkpoint = None if word in ("false", "none") else word
    return Recipe(path, given, run, training, model)


class _Parser(TrlParser):
    def error(self, message: str):
        raise ValueError(f"{message}. Write a value of the field's type.")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"Recipe {path} not found. Give the path of a YAML file, for example recipes/tiny_math.yaml.")
    try:
        recipe = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"Recipe {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(recipe, dict):
        raise ValueError(f"Recipe {path} holds no fields. Write one `field: value` a line.")
    return recipe


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
    shared = {f.name for f in fields(GRPOConfig)}
    own = [(f.name, f.type, field(default=f.default)) for f in fields(GBPOConfig) if f.name not in shared]
    return [RunArguments, GRPOConfig, ModelConfig, make_dataclass("GBPOFields", own)]


def _refuse_unknown(parser: _Parser, flags: list[str]) -> None:
    known = [action.dest for action in parser._actions]
    unknown = parser.parse_known_args(flags)[1]
    if unknown:
        name = next(iter(_names(unknown)), unknown[0])
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise ValueError(f"Unknown field {name!r} in the recipe or on the command line. Did you mean {nearest!r}?")


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        with contextlib.suppress(yaml.YAMLError):
            value = yaml.safe_load(value)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{name}={value!r} is not a mapping. Write it as {{key: value}}.")
    return value or {}
