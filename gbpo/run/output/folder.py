"""The folder a run writes: which one it is, and its config, metrics and curves."""

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

from transformers.trainer_utils import get_last_checkpoint

from ... import __version__
from ...shared.provenance import git_revision as git_revision
from ...shared.provenance import installed_version as installed_version
from ..recipe.parsing import Recipe

_PACKAGES = ("torch", "transformers", "trl", "accelerate", "peft", "datasets", "vllm", "deepspeed")

AUTO = "auto"  # of resume_from_checkpoint: go on from the last checkpoint if there is one, else start
CONFIG, METRICS, CURVES, MODEL, MERGED = "config.json", "metrics.jsonl", "curves.png", "model", "model-merged"


# what a checkpoint within a generation is laid out for
_LAYOUT = (
    "num_generations",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "steps_per_generation",
    "num_iterations",
    "world_size",
)


def choose(recipe: Recipe) -> Path:
    """The output folder: `output_dir` where it is given, else the first free `runs/<recipe>[-N]`.

    Raises:
        ValueError: For a folder that already holds a run, unless that run is resumed, nothing being overwritten; and
            for a run that cannot be resumed in this way.
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
            f"resume_from_checkpoint={resume!r} without output_dir would continue in a new folder. Give the run's own "
            "folder: --output_dir runs/…"
        )
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output_dir={str(folder)!r} is a file. Give a folder.")
    checkpoint = resume and last_checkpoint(folder, resume)
    if checkpoint:
        _check_layout(Path(checkpoint), recipe)
        return folder
    if resume and resume != AUTO:
        raise ValueError(
            f"resume_from_checkpoint={resume!r} finds no checkpoint in {str(folder)!r}. Name a checkpoint folder, or "
            "leave it out to start anew (save_strategy says when checkpoints are written)."
        )
    taken = [name for name in (CONFIG, METRICS, MODEL) if (folder / name).exists()]
    if MODEL in taken or (taken and not resume):
        raise ValueError(
            f"output_dir={str(folder)!r} already holds {', '.join(taken)}, which this run would overwrite. Give "
            "another folder, or continue that run with --resume_from_checkpoint true."
        )
    return folder


def last_checkpoint(folder: Path, resume: str) -> str | None:
    """The checkpoint that `resume_from_checkpoint` means: a folder, or with true or auto the last one of the run."""
    if resume in (AUTO, "true"):
        return get_last_checkpoint(str(folder)) if folder.is_dir() else None
    return resume if (Path(resume) / "trainer_state.json").is_file() else None


def _check_layout(checkpoint: Path, recipe: Recipe) -> None:
    path = checkpoint.parent / CONFIG
    before = json.loads(path.read_text())["training"] if path.is_file() else {}
    for name in _LAYOUT:
        now = getattr(recipe.training, name)
        if before.get(name, now) != now:
            raise ValueError(
                f"{name}={now}, but {str(checkpoint)!r} is of a run with {before[name]}: its completions and its place "
                f"in the data would not fit. Write {name}={before[name]}, or start a new run from its weights with "
                f"--model_name_or_path {checkpoint}."
            )


def write_config(folder: Path, recipe: Recipe, step: int) -> None:
    """Write what this run is: command, code revision, versions and every field, resolved.

    A run that goes on from `step` > 0 leaves the first `config.json` and writes `config-from-<step>.json`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "recipe": str(recipe.path),
        "command": sys.argv,
        "gbpo": __version__,
        "git_revision": git_revision(),
        "versions": versions(),
        "run": dataclasses.asdict(recipe.run),
        "model": dataclasses.asdict(recipe.model),
        "training": recipe.training.to_dict() | {"world_size": recipe.training.world_size},
    }
    name = f"config-from-{step}.json" if step and (folder / CONFIG).exists() else CONFIG
    (folder / name).write_text(json.dumps(config, indent=2, default=str) + "\n")


def append_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Add one logging step to `metrics.jsonl`; what is not a finite number becomes null."""
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in metrics.items()}
    with (folder / METRICS).open("a") as file:
        file.write(json.dumps(clean) + "\n")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All logging steps so far; an incomplete last line, of a run that was killed, is left out."""
    path = folder / METRICS
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def rewind_metrics(folder: Path, step: int) -> None:
    """Drop what was logged after `step`, so that a resumed run does not log it twice."""
    rows = [row for row in read_metrics(folder) if row["step"] <= step]
    temporary = folder / f"{METRICS}.new"
    temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
    temporary.replace(folder / METRICS)


def draw_curves(folder: Path, title: str) -> None:
    """Draw reward, entropy, ratio and length against steps into `curves.png`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels: dict[str, dict[str, str]] = {
        "reward": {"reward": "training", "eval_reward": "evaluation"},
        "entropy (nats per token)": {"entropy": "training"},
        "ratio (share of tokens)": {
            "gbpo/outside_bounds": "outside the bounds",
            "gbpo/overshoot": "past the bound of the target",
            "clip_ratio/region_mean": "GRPO clips",
        },
        "length (tokens)": {"completions/mean_length": "mean", "completions/max_length": "longest"},
    }
    rows = read_metrics(folder)
    figure, axes = pyplot.subplots(2, 2, figsize=(10, 6.5), sharex=True, layout="constrained")
    for axis, (panel, series) in zip(axes.flat, panels.items(), strict=True):
        for key, label in series.items():
            points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
            if points:
                axis.plot(*zip(*points, strict=True), label=label, marker="." if len(points) < 40 else None)
        axis.set_title(panel, fontsize=10)
        axis.grid(alpha=0.3)
        axis.set_ylim(bottom=0)
        if len(axis.lines) > 1:
            axis.legend(fontsize=8)
    for axis in axes[1]:
        axis.set_xlabel("optimiser step")
    figure.suptitle(title)
    figure.savefig(folder / CURVES, dpi=120)
    pyplot.close(figure)


def versions() -> dict[str, str | None]:
    """Of the packages that decide what a run does; None for one that is not installed."""
    return {name: installed_version(name) for name in _PACKAGES}
