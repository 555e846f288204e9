"""What a recipe says of data, prompts and rewards; loads neither torch nor TRL."""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

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
        eval_dataset_name: Hub id (its split `dataset_train_split`) or file to evaluate on in place of that split; its
            columns are renamed as those of the training set.
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
    eval_dataset_name: str | None = field(
        default=None, metadata={"help": "A Hub id or a local file to evaluate on, in place of dataset_test_split."}
    )
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
            setattr(self, name, mapping(name, getattr(self, name)))
        names = list(self.dataset_columns.values())
        if len(set(map(str, names))) < len(names):
            raise ValueError(
                f"dataset_columns={self.dataset_columns} gives one name to two columns. Write each name once."
            )
        if self.chat_template_path is not None and not Path(self.chat_template_path).expanduser().is_file():
            raise ValueError(
                f"chat_template_path={self.chat_template_path!r} not found. Give the path of a Jinja file."
            )
        if self.prompt_template is not None and "{prompt}" not in self.prompt_template:
            raise ValueError(
                f"prompt_template={self.prompt_template!r} has no {{prompt}}: every prompt would be the same text. "
                "Write {prompt} where the problem goes."
            )


def mapping(name: str, value: Any) -> dict[str, Any]:
    """A field that is a mapping, given as one or as JSON or YAML text; empty for None.

    Raises:
        ValueError: It is neither.
    """
    if isinstance(value, str):
        with contextlib.suppress(yaml.YAMLError):
            value = yaml.safe_load(value)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{name}={value!r} is not a mapping. Write it as {{key: value}}.")
    return value or {}
