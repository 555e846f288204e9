"""Where settings that are not given come from: the run that trained the model, or a recipe."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gbpo.run.output.folder import MODEL, config_of
from gbpo.run.recipe.arguments import EPISODES, RunArguments
from gbpo.shared.recipe_yaml import read_yaml

_CHAT_TEMPLATE = "chat_template.jinja"  # transformers saves the template of a tokenizer under this name

_RUN_FIELDS = {field.name for field in fields(RunArguments)}
# fields of the trainer's configuration that an evaluation reads
_TRAINER_FIELDS = (
    "chat_template_kwargs",
    "temperature",
    "top_p",
    "max_completion_length",
    "max_tool_calling_iterations",
)


@dataclass(frozen=True)
class Origin:
    """The settings with which a model was trained, or those of a recipe.

    Args:
        path: The file that they were read from.
        values: The fields of the recipe that an evaluation reads, by name.
    """

    path: Path
    values: dict[str, Any]

    @property
    def prompts(self) -> dict[str, Any]:
        """What shapes the prompts of a model, beside the data set."""
        template = self.values.get("chat_template_path")
        names = (
            *("system_prompt", "prompt_template", "chat_template_kwargs", "image_column"),
            *("tools", "environment", "environment_kwargs"),
        )
        return {name: self.values.get(name) or None for name in names} | {
            "chat_template_path": template and Path(template).expanduser().read_text()
        }


def origin_of_model(name: str) -> Origin | None:
    """The settings of the run that trained a model. None if the model is not in the folder of a run.

    Args:
        name: Output folder of a run, its model or one of its checkpoints.
    """
    folder = Path(name).expanduser()
    path = config_of(folder)
    if path is None:
        return None
    config = json.loads(path.read_text())
    values = config["run"] | {field: config["training"].get(field) for field in _TRAINER_FIELDS}
    saved = Path(trained_model(name)).expanduser() / _CHAT_TEMPLATE
    if values["chat_template_path"] is not None and saved.is_file():  # the run's file may have changed since
        values["chat_template_path"] = str(saved)
    return Origin(path, {field: values[field] for field in values if field in _RUN_FIELDS | set(_TRAINER_FIELDS)})


def origin_of_recipe(path: Path) -> Origin:
    """The settings of a recipe.

    Raises:
        ValueError: The recipe cannot be read.
    """
    from gbpo.trainer.config import BaseConfig  # loads TRL

    recipe = {name: value for name, value in read_yaml(path).items() if value is not None}
    values = {field.name: field.default for field in fields(BaseConfig) if field.name in _TRAINER_FIELDS}
    values |= {name: recipe[name] for name in recipe if name in _RUN_FIELDS | values.keys()}
    if "environment" in values:
        values.setdefault("dataset_name", EPISODES)
    return Origin(path, values)


def trained_model(name: str) -> str:
    """The folder of the model, if a name is the output folder of a run; else the name.

    Raises:
        ValueError: The run has not saved its model.
    """
    folder = Path(name).expanduser()
    path = config_of(folder)
    if path is None or path.parent != folder:
        return name
    if (folder / MODEL).is_dir():
        return str(folder / MODEL)
    checkpoints = ", ".join(sorted(str(found) for found in folder.glob("checkpoint-*"))) or "none yet"
    raise ValueError(
        f"{name!r} is a run that has not saved its model, because it did not finish. Give one of its checkpoints: "
        f"{checkpoints}."
    )


def is_model(name: str) -> bool:
    """Whether a name is a model or a run, and no data set."""
    folder = Path(name).expanduser()
    return name.startswith("builtin:") or any(
        (folder / file).is_file() for file in ("config.json", "adapter_config.json")
    )
