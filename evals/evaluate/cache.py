"""The cache of evaluations: one file each, whose name is a hash of everything that the result depends on."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from gbpo.run import environments, reward_hazards, tools
from gbpo.run import rewards as run_rewards
from gbpo.run.data import images, prompts
from gbpo.run.data import loading as data
from gbpo.run.environments.checks import Episodes
from gbpo.run.environments.episode import defined_by
from gbpo.run.models import catalogue as models
from gbpo.run.models import description
from gbpo.run.rewards_package import rewards_module
from gbpo.run.tools.named_tools import found_tools
from gbpo.shared.provenance import installed_version

from ..shared import results
from .checkpoint import Checkpoint
from .settings import Settings

# Settings that decide nothing but the questions and the chat template, which are part of the key themselves
_REPLACED = {
    "dataset_name",
    "dataset_config",
    "dataset_train_split",
    "dataset_columns",
    "dataset_extract",
    "max_prompt_tokens",
    "chat_template_path",
}
_PACKAGES = ("torch", "transformers", "peft", "vllm", "math-verify", "reasoning-gym", "openenv")
_MODEL_FILES = (".safetensors", ".bin", ".json", ".jinja", ".model", ".txt")
_TRAINING_FILES = ("training_args.bin", "trainer_state.json")


def cache_file(
    policy: Checkpoint,
    reference: Checkpoint | None,
    questions: Dataset,
    settings: Settings,
    reward: Callable[..., Any] | None,
    episodes: Episodes,
) -> Path:
    """Cache file of an evaluation.

    The file name is a hash of the weights, tokenizers, questions, settings, code, package versions and device.
    """
    own = [*found_tools(settings.run).values(), *(source for kind in episodes.values() for source in defined_by(kind))]
    pictures = [column] if (column := images.column_of(questions)) else []
    parts = {
        "models": [checkpoint and _fingerprint(checkpoint) for checkpoint in (policy, reference)],
        "questions": questions.remove_columns(pictures).to_list(),
        "images": images.prompt_keys(questions),
        "settings": {name: value for name, value in settings.as_dict().items() if name not in _REPLACED},
        "chat_template": policy.tokenizer.chat_template,
        "code": [_hash(path) for path in source_files(*filter(None, [reward, *own]))],
        "packages": {name: installed_version(name) for name in _PACKAGES},
        "device": str(torch.accelerator.current_accelerator()),
    }
    key = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
    return models.cache_folder() / "evaluations" / f"{key}.json"


def read(path: Path) -> Any:
    """Content of a cache file, or None if it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return None


def source_files(*own: Any) -> list[Path]:
    """Source files that the result of an evaluation depends on.

    These are the files of this package, the results format, the loading of data and models, all rewards, tools and
    environments, and the files that define the given rewards, tools and environments.
    """
    modules = [results, data, images, prompts, models, description, run_rewards, reward_hazards]
    roots = (__file__, rewards_module().__file__, tools.__file__, environments.__file__)
    packages = [Path(str(file)).parent for file in roots]
    return [
        *(Path(str(module.__file__)) for module in modules),
        *(path for package in packages for path in sorted(package.rglob("*.py"))),
        *(Path(inspect.getfile(_definition(one))) for one in own),
    ]


def _definition(one: Any) -> Any:
    """The function or class in whose file an object is defined."""
    return one if inspect.isroutine(one) or inspect.isclass(one) else getattr(one, "func", type(one))


def _fingerprint(checkpoint: Checkpoint) -> list[Any]:
    """Hashes of the weight and tokenizer files. For a model on the Hub, its commit."""
    found: list[Any] = []
    for source in (checkpoint.base, checkpoint.adapter):
        if source is None:
            continue
        folder = Path(source)
        if not folder.is_dir():
            found.append([source, checkpoint.description.config._commit_hash])
            continue
        files = sorted(path for path in folder.iterdir() if path.suffix in _MODEL_FILES)
        found.append([[path.name, _hash(path)] for path in files if path.name not in _TRAINING_FILES])
    return found


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
