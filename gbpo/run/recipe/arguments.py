"""The fields of a recipe for data, prompts and rewards. Importing this file loads neither torch nor TRL."""

import contextlib
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ...shared.recipe_yaml import load_yaml

# What YAML makes of \\boxed, \\frac, \\rightarrow, \\text and \\times in double quotes
_LOST_BACKSLASH = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]|\r(?!\n)|\t(?=ext|imes)")
ALGORITHMS = ("gbpo", "grpo")
VERIFIERS = "verifiers:"  # before the name of a taskset, as an environment or as a data set
EPISODES = "episodes"  # the generated task of an environment that has no data set
TOOL_TURNS = 8  # turns in which a completion may call tools, if a recipe with tools does not say


@dataclass
class RunArguments:
    """The fields of a recipe that belong neither to the trainer's nor to the model's configuration.

    Args:
        algorithm: `"gbpo"`, or `"grpo"` for TRL's GRPO loss with the same recipe.
        dataset_name: A Hub id, a local `.jsonl`, `.json`, `.parquet` or `.csv` file, or a generated task: `arithmetic`,
            `chains`, `programs`, `builtin:shapes` or `reasoning_gym:<task>`. The default with an environment is
            `episodes`: rows with a `seed` and an empty prompt, which the environment completes. With `verifiers:<name>`
            the default is the tasks of the taskset.
        dataset_config: Configuration of a Hub data set.
        dataset_train_split: Split to train on.
        dataset_test_split: Split to evaluate on when `eval_strategy` is set.
        eval_dataset_name: Hub id or local file to evaluate on instead of `dataset_test_split`. The split
            `dataset_train_split` is used, and `dataset_columns` applies to it as well.
        dataset_kwargs: Arguments of a generated task, for example `{size: 2000, seed: 0}`. The recipe's arguments are
            dropped if the command line gives another data set.
        dataset_columns: Columns to rename, for example `{problem: prompt, answer: solution}`. A dotted name such as
            `reward_model.ground_truth` is a value inside a column.
        dataset_extract: How to find the value of a column in its text, for example `{solution: after ####}`. The
            extractors are `after MARKER`, `last box`, `json list`, or the dotted path of your own function of a row.
        image_column: Column with the images of a vision-language model: one image or a list of them in each row, as
            images, bytes or paths. Relative paths start at the folder of the data file.
        max_prompt_tokens: Drop prompts with more tokens, in the training and the evaluation set. The tokens of images
            count.
        system_prompt: System message put before every prompt. Without a chat template it is text before the prompt.
        prompt_template: Text around the prompt. `{prompt}` marks where the prompt goes.
        chat_template_path: File with a Jinja chat template that replaces the tokenizer's.
        reward_funcs: Names of rewards, or dotted paths of your own functions.
        reward_kwargs: Options of each reward, for example `{math: {workers: 4}}`.
        environment: What the model acts in: `builtin:code_word`, `reasoning_gym:<task>`, `openenv:URL`,
            `verifiers:<name>`, or the dotted path of your own class or function. A mapping `{name: one of these}` gives
            each row the environment that its column `environment` names.
        environment_kwargs: Options of the environment, or of each environment by its name.
        tools: What the model can call: `builtin:python`, `builtin:calculator`, or dotted paths of your own functions.
        tool_timeout: Seconds after which a call of a tool is abandoned.
        dry_run: Print what the run would do and exit, without loading the model.
        merge_adapter: With LoRA, also write the merged model at the end.
        stop_on_collapse: End the run if entropy, length or reward collapses. By default, only print a warning.
    """

    algorithm: str = field(default="gbpo", metadata={"help": "gbpo, or grpo for TRL's GRPOTrainer."})
    dataset_name: str = field(
        default="",
        metadata={
            "help": "A Hub id, a local jsonl/json/parquet/csv file, arithmetic, chains, programs, builtin:shapes or "
            "reasoning_gym:<task>."
        },
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of a Hub data set."})
    dataset_train_split: str = field(default="train", metadata={"help": "Split to train on."})
    dataset_test_split: str = field(default="test", metadata={"help": "Split to evaluate on."})
    eval_dataset_name: str | None = field(
        default=None, metadata={"help": "A Hub id or a local file to evaluate on, instead of dataset_test_split."}
    )
    dataset_kwargs: dict[str, Any] = field(default_factory=dict, metadata={"help": "Arguments of a generated task."})
    dataset_columns: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "Columns to rename: {answer: solution}."}
    )
    dataset_extract: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "How to find a value in its text: {solution: 'after ####'}."},
    )
    image_column: str | None = field(default=None, metadata={"help": "Column with the images."})
    max_prompt_tokens: int | None = field(default=None, metadata={"help": "Drop prompts with more tokens."})
    system_prompt: str | None = field(default=None, metadata={"help": "System message put before every prompt."})
    prompt_template: str | None = field(default=None, metadata={"help": "Text around the prompt, which is {prompt}."})
    chat_template_path: str | None = field(default=None, metadata={"help": "File with a Jinja chat template."})
    reward_funcs: list[str] | None = field(
        default=None, metadata={"help": "Names of rewards, or dotted paths of your own functions."}
    )
    reward_kwargs: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "Options of each reward, by its name."}
    )
    environment: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "What the model acts in, such as builtin:code_word."},
    )
    environment_kwargs: dict[str, Any] = field(default_factory=dict, metadata={"help": "Options of the environment."})
    tools: list[str] | None = field(
        default=None,
        metadata={"help": "builtin:python, builtin:calculator or dotted paths."},
    )
    tool_timeout: float = field(default=10.0, metadata={"help": "Seconds until a call of a tool is abandoned."})
    dry_run: bool = field(default=False, metadata={"help": "Print what the run would do and exit."})
    merge_adapter: bool = field(default=False, metadata={"help": "With LoRA, also write the merged model at the end."})
    stop_on_collapse: bool = field(default=False, metadata={"help": "End the run on a collapse instead of warning."})

    def __post_init__(self):
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"algorithm={self.algorithm!r} is unknown. Write one of {', '.join(ALGORITHMS)}.")
        if isinstance(self.environment, str) and self.environment.startswith("{"):  # as below
            self.environment = mapping("environment", self.environment)
        if not self.dataset_name and self.environment:
            own = isinstance(self.environment, str) and self.environment.startswith(VERIFIERS)
            self.dataset_name = str(self.environment) if own else EPISODES
        if not self.dataset_name:
            raise ValueError(
                "dataset_name is missing: write a Hub id, a local file, arithmetic, chains, programs, builtin:shapes "
                "or reasoning_gym:<task>."
            )
        for name in (
            "dataset_kwargs",
            "dataset_columns",
            "dataset_extract",
            "reward_kwargs",
            "environment_kwargs",
        ):  # other commands pass text
            setattr(self, name, mapping(name, getattr(self, name)))
        if isinstance(self.tools, str):  # as above
            self.tools = load_yaml(self.tools) if self.tools.startswith("[") else [self.tools]
        if not 0 < self.tool_timeout < math.inf:
            raise ValueError(
                f"tool_timeout={self.tool_timeout:g} would abandon every call of a tool, or no call. Write seconds "
                "above 0."
            )
        for name, fields in (("dataset_columns", self.dataset_columns), ("dataset_extract", self.dataset_extract)):
            for key, value in fields.items():
                if value is None and ":" in str(key):
                    spaced = str(key).replace(":", ": ", 1)
                    raise ValueError(f"{name}={fields} has no space after a colon. Write {{{spaced}}}.")
                if not isinstance(key, str) or not isinstance(value, str):
                    raise ValueError(
                        f"{name}={fields} maps {key!r} to {value!r}, but both must be text. Write names, and put "
                        "numbers in quotes."
                    )
        names = list(self.dataset_columns.values())
        if len(set(names)) < len(names):
            raise ValueError(
                f"dataset_columns={self.dataset_columns} gives two columns the same name. Write each new name once."
            )
        if self.max_prompt_tokens is not None and self.max_prompt_tokens < 1:
            raise ValueError(
                f"max_prompt_tokens={self.max_prompt_tokens} would drop every prompt. Write a positive number."
            )
        if self.chat_template_path is not None and not Path(self.chat_template_path).expanduser().is_file():
            raise ValueError(
                f"chat_template_path={self.chat_template_path!r} not found. Give the path of a Jinja file."
            )
        if self.chat_template_path is not None and self.chat_template_path.endswith(".json"):
            raise ValueError(
                f"chat_template_path={self.chat_template_path!r} is JSON, and its braces would stand in every prompt. "
                "Write its value of chat_template to a Jinja file, and give the path of this file."
            )
        for name, text in (("system_prompt", self.system_prompt), ("prompt_template", self.prompt_template)):
            if found := _LOST_BACKSLASH.search(text or ""):
                raise ValueError(
                    f"{name}={text!r} has the character {found[0]!r}: in double quotes, YAML reads a backslash and "
                    "a letter as one character. Write single quotes."
                )
        if "{{prompt}}" in (self.prompt_template or "").replace(" ", ""):
            raise ValueError(
                f"prompt_template={self.prompt_template!r} has two braces, and one of them would stay in every prompt. "
                "Write {prompt}."
            )
        if self.prompt_template is not None and "{prompt}" not in self.prompt_template:
            raise ValueError(
                f"prompt_template={self.prompt_template!r} has no {{prompt}}: every prompt would be the same text. "
                "Write {prompt} where the problem goes."
            )


def mapping(name: str, value: Any) -> dict[str, Any]:
    """The value of a field that takes a mapping.

    Args:
        name: Name of the field, for the error.
        value: A mapping, or a mapping as JSON or YAML text. None and empty text are an empty mapping.

    Raises:
        ValueError: `value` is none of these.
    """
    if isinstance(value, str):
        with contextlib.suppress(yaml.YAMLError):
            value = load_yaml(value)
    if value is not None and not isinstance(value, dict):
        quotes = (
            " YAML takes # after a space for a comment, so put a value with # in quotes." if "#" in str(value) else ""
        )
        raise ValueError(f"{name}={value!r} is not a mapping. Write it as {{key: value}}.{quotes}")
    return value or {}
