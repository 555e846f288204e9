"""The output folder of a run: how it is chosen, its config file and its metrics file."""

import dataclasses
import json
import math
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...shared.hardware import describe_hardware
from ...shared.provenance import git_revision, installed_version
from ...shared.secret_values import options_without_secrets
from ...shared.version import __version__
from ...shared.write_whole import write_whole

if TYPE_CHECKING:
    from ..recipe.parsing import Recipe  # which loads TRL: `config_of` is used without it

_PACKAGES = ("torch", "transformers", "trl", "accelerate", "peft", "datasets", "vllm", "deepspeed")

AUTO = "auto"  # for resume_from_checkpoint: continue from the last checkpoint, or start if there is none
TIME = "%Y-%m-%d %H:%M:%S"  # how the time of a start or an end is written
CONFIG, METRICS, CURVES, MODEL, MERGED = "config.json", "metrics.jsonl", "curves.png", "model", "model-merged"

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_STATE = "trainer_state.json"  # of a checkpoint

# A checkpoint can hold completions that are not trained on yet. These fields decide how completions are split into
# micro-batches and groups, so they must not change on a resume.
_LAYOUT = (
    "num_generations",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "steps_per_generation",
    "num_iterations",
    "world_size",
)
_OF_A_START = ("output_dir", "resume_from_checkpoint")  # fields that describe a start and not the training
_WEIGHTS = ("use_peft", "lora_r")  # fields that decide which weights a checkpoint and its optimiser hold


def choose(recipe: "Recipe") -> Path:
    """Choose the output folder: `output_dir` if it is given, else the first unused `runs/<recipe>[-N]`.

    Raises:
        ValueError: The run would overwrite another run, or cannot resume from the checkpoint that the recipe asks for.
    """
    resume = recipe.training.resume_from_checkpoint
    if "output_dir" in recipe.given:
        folder = Path(recipe.training.output_dir)
    elif not resume:
        stem = Path("runs") / recipe.path.stem
        candidates = (stem if n == 1 else stem.with_name(f"{stem.name}-{n}") for n in range(1, sys.maxsize))
        return next(folder for folder in candidates if not folder.exists())
    else:
        raise ValueError(
            f"resume_from_checkpoint={resume!r} without output_dir would continue in a new folder. Give the folder of "
            "the run to continue: --output_dir runs/…"
        )
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output_dir={str(folder)!r} is a file. Give a folder.")
    checkpoint = resume and last_checkpoint(folder, resume)
    taken = [name for name in (CONFIG, METRICS, MODEL) if (folder / name).exists()]
    is_own = checkpoint and Path(checkpoint).resolve().parent == folder.resolve()
    goes_on = resume in (AUTO, "true") and MODEL not in taken
    if checkpoint and (not taken or is_own or goes_on):
        _check_layout(Path(checkpoint), recipe)
        return folder
    if checkpoint and resume not in (AUTO, "true"):
        raise ValueError(
            f"output_dir={str(folder)!r} holds another run than the checkpoint {checkpoint!r}, and this run would "
            "overwrite it. Give a new folder, or the folder of the checkpoint."
        )
    if resume and resume != AUTO:
        if last := _last_of(folder):
            raise ValueError(
                f"resume_from_checkpoint={resume!r} is not a checkpoint, so the run cannot continue from it. Write "
                f"true for {last}, or the path of another checkpoint."
            )
        raise ValueError(
            f"resume_from_checkpoint={resume!r}: {str(folder)!r} holds no checkpoint to continue from. Name a "
            "checkpoint folder, or remove the field to start a new run (save_strategy decides when checkpoints are "
            "written)."
        )
    if MODEL in taken or (taken and not resume):
        can_continue = _last_of(folder) is not None
        remedy = ", or continue that run with --resume_from_checkpoint true" if can_continue else ""
        raise ValueError(
            f"output_dir={str(folder)!r} already holds {', '.join(taken)}, which this run would overwrite. Give "
            f"another folder{remedy}."
        )
    return folder


def last_checkpoint(folder: Path, resume: str) -> str | None:
    """The checkpoint to continue from.

    Args:
        folder: Output folder of the run.
        resume: `"true"` or `"auto"` for its last checkpoint, or the path of a checkpoint. If the run started from a
            checkpoint of another run and has none of its own yet, its last checkpoint is that one.

    Returns:
        The path of the checkpoint, or None if it does not exist.
    """
    if resume in (AUTO, "true"):
        return _last_of(folder) or _started_from(folder)
    return resume if (Path(resume) / _STATE).is_file() else None


def _last_of(folder: Path) -> str | None:
    from transformers.trainer_utils import get_last_checkpoint  # slow to import

    return get_last_checkpoint(str(folder)) if folder.is_dir() else None


def _started_from(folder: Path) -> str | None:
    """The checkpoint of another run from which the run in a folder started."""
    try:
        given = json.loads((folder / CONFIG).read_text())["training"]["resume_from_checkpoint"]
    except (OSError, ValueError, TypeError, KeyError):  # no file, or the config.json of something else
        return None
    return given if isinstance(given, str) and (Path(given) / _STATE).is_file() else None


def step_of(checkpoint: str) -> int:
    """The optimiser step of a checkpoint, whose folder may have any name."""
    return json.loads((Path(checkpoint) / _STATE).read_text())["global_step"]


def _check_layout(checkpoint: Path, recipe: "Recipe") -> None:
    path = checkpoint.parent / CONFIG
    try:
        config = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}), so it does not say whether {str(checkpoint)!r} fits this recipe. Restore "
            "it, or remove it to continue without this check."
        ) from None
    for section, part, names, held in (
        ("training", recipe.training, _LAYOUT, "the completions and the position in the data"),
        ("model", recipe.model, _WEIGHTS, "the weights and the state of the optimiser"),
    ):
        before = config.get(section, {})
        for name in names:
            now = getattr(part, name)
            if before.get(name, now) != now:
                raise ValueError(
                    f"{name}={now}, but {str(checkpoint)!r} was saved with {before[name]}: {held} that the checkpoint "
                    f"holds would not fit. Write {name}={before[name]}, or start a new run from the weights of the "
                    f"checkpoint with --model_name_or_path {checkpoint}."
                )


def write_config(
    folder: Path, recipe: "Recipe", step: int, command: Sequence[str] = (), command_to_continue: str = ""
) -> None:
    """Write the commands, code revision, versions, hardware and all fields of a run to `config.json`, without secrets.

    Args:
        folder: Output folder, which is created if needed.
        recipe: The parsed recipe.
        step: Step that the run continues from. If it is not 0 and `config.json` exists, the file is named
            `config-from-<step>.json`.
        command: The words of the command that started the run.
        command_to_continue: The command that continues the run, in the folder where it was started.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "recipe": str(recipe.path),
        "command": list(command),
        "command_to_continue": command_to_continue,
        "started": time.strftime(TIME),
        "gbpo": __version__,
        "git_revision": git_revision(),
        "versions": versions(),
        "hardware": describe_hardware(),
        "changed": _changed(recipe),
        **_fields(recipe),
    }
    name = f"config-from-{step}.json" if step and (folder / CONFIG).exists() else CONFIG
    write_whole(folder / name, json.dumps(options_without_secrets(config), indent=2, default=str) + "\n")


def changes(checkpoint: str, recipe: "Recipe") -> list[str]:
    """The given fields whose values differ from those with which a checkpoint was saved, as `name: before -> now`."""
    path = config_of(Path(checkpoint))
    before = json.loads(path.read_text()) if path else {}
    now = json.loads(json.dumps(options_without_secrets(_fields(recipe)), default=str))
    return [
        f"{name}: {before[section][name]} -> {now[section][name]}"
        for section in ("run", "model", "training")
        if section in before
        for name in sorted({*before["changed"][section], *_changed(recipe)[section]} - {*_OF_A_START})
        if before[section].get(name) != now[section].get(name)
    ]


def _fields(recipe: "Recipe") -> dict[str, dict[str, Any]]:
    """All fields of a recipe, by the section of `config.json` they are in."""
    return {
        "run": dataclasses.asdict(recipe.run),
        "model": dataclasses.asdict(recipe.model),
        "training": recipe.training.to_dict() | {"world_size": recipe.training.world_size},
    }


def _changed(recipe: "Recipe") -> dict[str, list[str]]:
    """The names of the given fields that differ from their defaults, by the section of `config.json` they are in."""
    parts = {"run": recipe.run, "model": recipe.model, "training": recipe.training}
    return {
        section: [
            field.name
            for field in dataclasses.fields(part)
            if field.name in recipe.given and getattr(part, field.name) != _default(field)
        ]
        for section, part in parts.items()
    }


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def config_of(model: Path) -> Path | None:
    """The file with the settings of a trained model, which `write_config` wrote. None if no run saved the model.

    Args:
        model: Output folder of a run, its model or one of its checkpoints.
    """
    checkpoint = _CHECKPOINT.fullmatch(model.name)
    step = int(checkpoint[1]) if checkpoint else math.inf
    folder = model.parent if checkpoint or model.name in (MODEL, MERGED) else model
    starts = {path: int(path.stem.rpartition("-")[2]) for path in folder.glob("config-from-*.json")}
    found = []
    for path, start in {folder / CONFIG: -1, **starts}.items():
        try:
            config = json.loads(path.read_text())
        except (OSError, ValueError):  # no file
            continue
        if start < step and isinstance(config, dict) and {"run", "training"} <= config.keys():  # not something else's
            found.append((config.get("started", ""), start, path))
    return max(found)[-1] if found else None  # a run can resume from an earlier step than it did before


def set_aside_later_checkpoints(folder: Path, step: int) -> Path | None:
    """Move the checkpoints of later steps than `step` to a folder of their own, and return it. None if there are none.

    A run that resumes at `step` makes these steps again. If it were stopped before it reached the old checkpoints, its
    next resume would continue from one of them.
    """
    paths = [(path, _CHECKPOINT.fullmatch(path.name)) for path in folder.iterdir()]
    later = [path for path, match in paths if match and int(match[1]) > step]
    if not later:
        return None
    aside = folder / f"set-aside-{time.strftime('%Y%m%d-%H%M%S')}"
    aside.mkdir(exist_ok=True)
    for path in later:
        path.rename(aside / path.name)
    return aside


def append_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Append one logging step to `metrics.jsonl`. Infinities and NaN become null."""
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in metrics.items()}
    with (folder / METRICS).open("a") as file:
        file.write(json.dumps(clean) + "\n")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All logging steps so far. If the run was killed, an incomplete last line is skipped."""
    path = folder / METRICS
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def rewind_metrics(folder: Path, step: int) -> None:
    """Remove the rows of later steps than `step`, so that a resumed run does not log these steps twice."""
    rows = [row for row in read_metrics(folder) if row["step"] <= step]
    write_whole(folder / METRICS, "".join(json.dumps(row) + "\n" for row in rows))


def versions() -> dict[str, str | None]:
    """Versions of the packages that affect the results of a run. None for packages that are not installed."""
    return {name: installed_version(name) for name in _PACKAGES}
