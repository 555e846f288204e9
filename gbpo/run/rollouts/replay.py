"""Computes rewards and advantages of stored completions again, with the code of the trainer and without the model."""

import inspect
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from ...trainer.base import BaseTrainer
from ...trainer.config import BaseConfig, GBPOConfig
from ...trainer.gbpo import GBPOTrainer
from ...trainer.rollout_log import Record
from ..data.loading import quiet
from ..models.tiny import character_tokenizer, tiny_decoder
from ..output.folder import config_of
from ..preview import hazards
from ..recipe.arguments import RunArguments
from ..rewards import load_rewards
from . import files

TOLERANCE = 1e-6  # smaller differences are rounding

# The fields of the trainer that rewards, advantages and targets depend on.
_FIELDS = (
    "num_generations",
    "reward_weights",
    "scale_rewards",
    "multi_objective_aggregation",
    "epsilon",
    "epsilon_high",
    "target_baseline",
    "target_temperature",
)


def replay(run: Path, step: int) -> Iterator[str]:
    """The lines of a table that compares stored and new rewards and advantages.

    Args:
        run: Output folder of the run.
        step: The optimiser step whose completions are graded.

    Raises:
        ValueError: The run has no completions of this step, or they cannot be graded without the model.
    """
    quiet()
    for stored in files.records_of_step(run, step):
        yield from _table(stored, graded_again(run, stored))


def graded_again(run: Path, stored: Record) -> Record:
    """The record of a generation with rewards, advantages and targets computed again.

    Args:
        run: Output folder of the run, whose configuration names the rewards and their options.
        stored: The stored record.

    Raises:
        ValueError: The rewards or the advantages cannot be computed from what is stored.
    """
    settings = _settings(run, stored)
    rows, completions, ids, own = [], [], [], []
    for group in stored["groups"]:
        for one in group["completions"]:
            rows.append({**group["row"], **one.get("row", {})})
            completions.append(one["completion"])
            ids.append(one["ids"])
            own.append(one.get("own", [1] * len(one["ids"])))
    arguments, training = RunArguments(**settings["run"]), settings["training"]
    _check_advantages(training, stored)
    columns = Dataset.from_dict({name: [] for name in rows[0]})
    rewards = load_rewards(arguments, columns, training["max_completion_length"])
    for reward in rewards:
        if "environments" in inspect.signature(reward).parameters:
            raise ValueError(
                f"The reward {reward.__name__!r} reads environments, which are not stored: it cannot be computed "
                "again. Replay a run whose rewards read text and columns only."
            )
    found: list[Record] = []
    with tempfile.TemporaryDirectory() as folder:
        is_gbpo = arguments.algorithm == "gbpo"
        config = GBPOConfig if is_gbpo else BaseConfig
        args = config(
            output_dir=folder,
            per_device_train_batch_size=len(rows),
            steps_per_generation=1,
            use_cpu=True,
            bf16=False,
            report_to="none",
            **{name: training[name] for name in _FIELDS if name in training and name in config.__dataclass_fields__},
        )
        tokenizer = character_tokenizer()
        with hazards.without_config_warnings():
            trainer = (GBPOTrainer if is_gbpo else BaseTrainer)(
                tiny_decoder(tokenizer),  # the trainer wants a model, which is never run
                rewards,
                args,
                train_dataset=Dataset.from_dict({"prompt": [""] * len(rows)}),
                processing_class=tokenizer,
            )
        trainer.extra_votes.rounds = None  # the stored rows have the votes
        trainer.record_rollouts(found.append)
        trainer.state.global_step = stored["steps"][0] - 1  # rewards may depend on the progress of the training
        trainer.state.max_steps = training["max_steps"]
        trainer.score_again(rows, completions, ids, own)
    return found[0]


def _settings(run: Path, stored: Record) -> dict[str, Any]:
    """The settings of the run, or of its continuation, that sampled the generation."""
    path = config_of(run / f"checkpoint-{stored['steps'][1]}")
    if path is None:
        raise ValueError(f"{str(run)!r} has no config.json of a run, which names the rewards. Give the output folder.")
    return json.loads(path.read_text())


def _check_advantages(training: dict[str, Any], stored: Record) -> None:
    over_batch = [
        f"{name}={training[name]}"
        for name, value in {"scale_rewards": "batch", "multi_objective_aggregation": "normalize_then_sum"}.items()
        if training[name] == value
    ]
    if stored["drawn_groups"] > len(stored["groups"]) and over_batch:
        raise ValueError(
            f"{over_batch[0]} normalises over all {stored['drawn_groups']} groups that were drawn, but only the "
            f"{len(stored['groups'])} groups that were trained on are stored: the advantages would differ. Replay a "
            "run without resample_zero_signal_groups, or one that normalises in each group."
        )


def _table(stored: Record, new: Record) -> Iterator[str]:
    """One line for each completion, and a last line with the number of differences."""
    names = list(stored["groups"][0]["completions"][0]["rewards"])
    columns = [*names, *(["reward"] if len(names) > 1 else []), "advantage"]
    rows, changed = [], dict.fromkeys(columns, 0)
    for number, (before, after) in enumerate(zip(stored["groups"], new["groups"], strict=True)):
        for one, other in zip(before["completions"], after["completions"], strict=True):
            old, now = one | one["rewards"], other | other["rewards"]
            cells = [str(number)]
            for column in columns:
                differs = _differs(old[column], now[column])
                changed[column] += differs
                cells.append(f"{_shown(old[column])} -> {_shown(now[column])}" if differs else _shown(old[column]))
            rows.append([*cells, _excerpt(one["completion"])])
    widths = [max(map(len, column)) for column in zip(["group", *columns, ""], *rows, strict=True)][:-1]
    yield f"generation {stored['generation']}, steps {stored['steps'][0]} to {stored['steps'][1]}"
    for row in [["group", *columns, "completion"], *rows]:
        yield "  ".join([*(cell.rjust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
    found = ", ".join(f"{count} in {column}" for column, count in changed.items() if count)
    yield f"{len(rows)} completions: {'differences: ' + found if found else 'no differences'}"


def _differs(old: float | None, new: float | None) -> bool:
    if old is None or new is None:
        return old is not new
    return abs(old - new) > TOLERANCE


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _excerpt(completion: Any) -> str:
    """The end of a completion in one line, because the answer is usually there."""
    text = completion if isinstance(completion, str) else str(completion[-1].get("content") or "")
    line = " ".join(text.split())
    return line if len(line) <= 40 else f"…{line[-39:]}"
