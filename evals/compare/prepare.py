"""Check a comparison before anything runs, and write its recipe and questions into its folder."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from gbpo.run.data import loading as data
from gbpo.run.data.long_prompts import drop_long_prompts, rows_of_short_prompts
from gbpo.run.data.prompts import PromptFormat
from gbpo.run.models import catalogue as models
from gbpo.run.models.chat_templates import check_recipe_prompts
from gbpo.run.models.description import describe
from gbpo.run.preview import hazards
from gbpo.run.recipe import parsing as recipes
from gbpo.run.recipe.arguments import RunArguments
from gbpo.run.recipe.parsing import Recipe
from gbpo.run.rewards import load_rewards, named_rewards
from gbpo.run.train import check_enough_prompts
from gbpo.shared.recipe_yaml import read_yaml
from gbpo.shared.write_whole import write_whole

from ..evaluate.evaluation import episodes_of_test
from ..evaluate.settings import QUESTION_FIELDS, TOOL_FIELDS, Settings
from .cell_command import cell_flags
from .grid import grid_points, read_grid
from .plan import RECIPE, ComparisonPlan
from .point import Point
from .questions import with_image_files, write_questions
from .same_steps import shared_run_notes

_FEWEST_QUESTIONS = 2  # one to choose a checkpoint, one to test it
# Fields that would give the runs of two grid points different starting models or prompts, in addition to those of the
# questions
_OF_ONE_TEST = {"model_name_or_path", "model_revision", "chat_template_kwargs"}
# Fields of a recipe that name the questions, which the comparison writes to a file
_SET_BY_QUESTIONS = {"dataset_name", "dataset_config", "dataset_train_split", "dataset_kwargs"}
_MANIFEST = "comparison.json"


def prepare(options: argparse.Namespace, overrides: list[str], command: str) -> ComparisonPlan:
    """Check the comparison without loading a model, and write its recipe and questions into its folder.

    Args:
        options: Parsed options of `evals.compare`.
        overrides: The remaining arguments: fields for every run.
        command: Command line of the comparison.

    Raises:
        ValueError: The recipe, its data or the folder is invalid, or the comparison cannot show a difference.
    """
    launcher = _check_options(options)
    read_yaml(options.recipe)  # raises an error if there is no recipe; later errors name an algorithm
    grid = read_grid(options.grid)
    found = grid_points(options.recipe, options.algorithms, grid, overrides)
    recipe = found[0].recipe
    _check_recipe(options, recipe)
    held_out = options.eval_dataset_name or recipe.run.eval_dataset_name
    _check_one_test(grid, held_out)
    run = dataclasses.replace(recipe.run, eval_dataset_name=held_out)
    test = _with_test_reward(options, run)
    Settings(test)  # raises an error for tasks that a test cannot run
    train_set, eval_set = data.load(run, evaluation=True)
    assert eval_set is not None  # because evaluation=True
    questions = data.held_out(run, len(train_set))  # the same rows, as they lie; the runs read them like the recipe's
    limit = recipe.training.max_completion_length
    load_rewards(run, train_set, limit)
    load_rewards(test, eval_set, limit)
    episodes_of_test(test, eval_set)
    train_set, rows, switched_off = _check_prompts(dataclasses.replace(recipe, run=run), train_set, eval_set)
    for hazard in switched_off:
        print(f"gbpo compare: warning: {hazard}", file=sys.stderr, flush=True)
    for point in found:
        check_enough_prompts(point.recipe, len(train_set))
        recipes.parse([str(options.recipe), *overrides, *cell_flags(point, options.eval_steps)])
    plan = ComparisonPlan(
        folder=options.output.resolve(),
        recipe=options.recipe,
        overrides=overrides,
        algorithms=options.algorithms,
        grid=grid,
        seeds=options.seeds,
        points=found,
        eval_steps=options.eval_steps,
        evaluation=_evaluation_flags(options, recipe),
        launcher=launcher,
        jobs=options.jobs,
        notes=[
            *shared_run_notes(found),
            *_prompt_notes(found),
            *_test_notes(options, grid),
            *hazards.overlap(train_set, eval_set),
            *switched_off,
        ],
        command=command,
    )
    rows = rows[: options.eval_questions]
    if len(rows) < _FEWEST_QUESTIONS:
        raise ValueError(
            f"{len(rows)} held-out question(s) cannot be split into validation and test questions. Give more questions."
        )
    _check_unchanged(plan, held_out, options.eval_questions)
    chosen = questions.select(rows)
    if run.image_column is not None:
        chosen = with_image_files(chosen, eval_set.select(rows), run, plan.folder)
    write_questions(plan.folder, chosen)
    return plan


def _check_options(options: argparse.Namespace) -> list[str]:
    """Check the options that no recipe has.

    Returns:
        The command that starts a run.

    Raises:
        ValueError: An option has no meaning.
    """
    if len(set(options.seeds)) < len(options.seeds):
        raise ValueError(
            f"--seeds {' '.join(map(str, options.seeds))} repeats a seed, so runs would be repeated. "
            "Write each only once."
        )
    if wrong := [seed for seed in options.seeds if not 0 <= seed < 2**32]:
        raise ValueError(
            f"--seeds {wrong[0]} is not a seed that NumPy accepts, so every run would fail. Write a number from 0 to "
            f"{2**32 - 1}."
        )
    if options.jobs < 1:
        raise ValueError(f"--jobs {options.jobs} would start no run. Write 1 or more.")
    if options.eval_steps is not None and not 0 < options.eval_steps < math.inf:
        raise ValueError(
            f"--eval_steps {options.eval_steps:g} sets no steps between validations. Write a number of steps, or a "
            "fraction of all steps such as 0.05."
        )
    if options.eval_questions < _FEWEST_QUESTIONS:
        raise ValueError(
            f"--eval_questions {options.eval_questions} cannot be split into validation and test questions. Write "
            f"{_FEWEST_QUESTIONS} or more."
        )
    try:
        launcher = shlex.split(options.launcher or "") or [sys.executable]
    except ValueError as error:
        raise ValueError(
            f"--launcher {options.launcher!r} is not a command: {error}. Close the quotation marks."
        ) from None
    if shutil.which(launcher[0]) is None:
        raise ValueError(
            f"--launcher {options.launcher!r}: there is no command {launcher[0]!r}, so no run could start. Install it, "
            "or correct its name."
        )
    return launcher


def _check_recipe(options: argparse.Namespace, recipe: Recipe) -> None:
    """Check the fields of a recipe that work in a run but not in a comparison.

    Raises:
        ValueError: A field does not work here.
    """
    if recipe.run.dry_run:
        raise ValueError(
            "dry_run=True would train no model, so there would be nothing to test. Remove it, or preview a run: "
            f"gbpo train {options.recipe} --dry_run true."
        )
    if options.jobs > 1 and recipe.training.use_vllm and recipe.training.vllm_mode == "server":
        raise ValueError(
            f"--jobs {options.jobs} with vllm_mode='server': the runs would send their weights to the same server, so "
            "they would train on completions of each other's models. Write --jobs 1, or vllm_mode: colocate."
        )
    if (revision := recipe.model.model_revision) != "main":
        raise ValueError(
            f"model_revision={revision!r}: the starting model would be tested in its newest revision. Download the "
            "revision into a folder, and write this folder as model_name_or_path."
        )


def _check_one_test(grid: Mapping[str, Any], held_out: str | None) -> None:
    """Check that the models of all grid points can take the same test, which has the prompts of the first point.

    Raises:
        ValueError: A field of the grid decides the prompts, the questions or the starting model.
    """
    shared = _OF_ONE_TEST.union(QUESTION_FIELDS) - (_SET_BY_QUESTIONS if held_out else set())
    for name in grid:
        if name in shared:
            held = " or give the held-out questions with --eval_dataset_name" * (name in _SET_BY_QUESTIONS)
            raise ValueError(
                f"--grid {name}=… would change the prompts, the questions or the starting model, but all models of a "
                f"comparison take the same test. Run one comparison for each value{held}."
            )


def _check_prompts(recipe: Recipe, train_set: Dataset, eval_set: Dataset) -> tuple[Dataset, list[int], list[str]]:
    """Check the prompts, and find those that the runs drop because they are too long.

    Returns:
        The training set without long prompts, the rows of the evaluation set without them, and the hazards of the
        prompts and of the rewards.

    Raises:
        ValueError: The model cannot be read, or its chat template does not write the prompts.
    """
    name, limit = recipe.model.model_name_or_path, recipe.run.max_prompt_tokens
    models.check_model_name(name)
    if limit is None and not models.is_built(name):  # the first run builds it
        return train_set, list(range(len(eval_set))), []
    description, form = describe(models.local_model(name), recipe), PromptFormat.of(recipe)
    check_recipe_prompts(recipe, train_set, eval_set, description.tokenizer)
    train_set = drop_long_prompts(train_set, limit, form, description.processing_class, "training set")
    rows = rows_of_short_prompts(eval_set, limit, form, description.processing_class, "evaluation set")
    return train_set, rows, hazards.of_prompts_and_rewards(recipe, train_set, description)


def _prompt_notes(points: Sequence[Point]) -> list[str]:
    """A line if the prompts of a run depend on its rewards, so that the runs of one seed may see different prompts."""
    if not any(point.recipe.training.difficulty for point in points):
        return []
    return [
        "difficulty chooses prompts by the rewards. The runs of one seed have the same prompts in the first pass over "
        "the training set. After it, each run has its own prompts. Differences are paired by the seed."
    ]


def _test_notes(options: argparse.Namespace, grid: Mapping[str, Sequence[Any]]) -> list[str]:
    """A line for each field of the grid that decides the sampling in training but not in the test."""
    given = {"temperature": options.eval_temperature, "top_p": options.eval_top_p}
    return [
        f"All models are tested with {name}={grid[name][0]}, the first value of the grid."
        for name in ("temperature", "top_p", "max_completion_length", "max_tool_calling_iterations")
        if name in grid and given.get(name) is None
    ]


def _with_test_reward(options: argparse.Namespace, run: RunArguments) -> RunArguments:
    """The recipe's arguments with only the reward that is used for the test: in an environment, the environment's.

    Raises:
        ValueError: The reward is the majority vote.
    """
    rewards = named_rewards(run)
    if run.environment and options.eval_reward is None:
        return dataclasses.replace(run, reward_funcs=None, reward_kwargs={})
    name = options.eval_reward or next(iter(rewards))
    if name == "majority_vote":
        raise ValueError(
            "reward_funcs=['majority_vote'] rewards the most common answer even if it is wrong, so it cannot show "
            "which algorithm is better. Write --eval_reward, for example --eval_reward math."
        )
    return dataclasses.replace(run, reward_funcs=[name], reward_kwargs={name: rewards.get(name, {})})


def _evaluation_flags(options: argparse.Namespace, recipe: Recipe) -> list[str]:
    """The flags for `evals.evaluate`, except the models, the data and the output.

    Raises:
        ValueError: `evals.evaluate` would not accept these flags.
    """
    run, args = _with_test_reward(options, recipe.run), recipe.training
    sampling = {
        "samples": options.eval_samples,
        "temperature": args.temperature if options.eval_temperature is None else options.eval_temperature,
        "top_p": args.top_p if options.eval_top_p is None else options.eval_top_p,
        "max_tokens": args.max_completion_length,
        "tool_turns": args.max_tool_calling_iterations,
    }
    if run.environment:
        sampling["batch_size"] = args.generation_batch_size  # as many environments as in training
    template_kwargs = args.chat_template_kwargs or {}
    Settings(run, template_kwargs, **sampling)
    prompts = {name: getattr(run, name) for name in QUESTION_FIELDS if name not in _SET_BY_QUESTIONS}
    prompts |= {"chat_template_kwargs": template_kwargs}
    if not (run.tools or run.environment):
        prompts, sampling = ({n: v for n, v in part.items() if n not in TOOL_FIELDS} for part in (prompts, sampling))
    reward = next(iter(run.reward_funcs or []), None)
    values = {
        **({} if reward is None else {"reward": reward, "reward_kwargs": run.reward_kwargs[reward]}),
        **sampling,
        **{name: value for name, value in prompts.items() if value},
    }
    return [f"--{name}={json.dumps(value) if isinstance(value, dict) else value}" for name, value in values.items()]


def _check_unchanged(plan: ComparisonPlan, held_out: str | None, questions: int) -> None:
    """Check that earlier cells in the folder are comparable, and write the recipe and the shared settings.

    Raises:
        ValueError: The folder contains cells with another recipe, another training file, other overrides or another
            evaluation.
    """
    path, recipe = plan.folder / _MANIFEST, plan.folder / RECIPE
    now = {
        "overrides": plan.overrides,
        "launcher": plan.launcher,
        "evaluation": plan.evaluation,
        "eval_steps": plan.eval_steps,
        "eval_dataset_name": held_out,
        "eval_questions": questions,
        "training_file": _digest(Path(plan.base.run.dataset_name).expanduser()),
    }
    before: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else now
    # an earlier version has not written all of the fields
    changed = [name for name in now if before.get(name, now[name]) != now[name]]
    if path.is_file() and read_yaml(recipe) != read_yaml(plan.recipe):  # comments may differ
        changed.insert(0, "recipe")
    if changed:
        raise ValueError(
            f"{str(plan.folder)!r} contains runs with another {', '.join(changed)}, which are not comparable with "
            "these. Give another --output, or keep the earlier command and only add algorithms, seeds or grid values."
        )
    if not path.is_file() and any(plan.folder.glob("[!.]*")):
        raise ValueError(
            f"{str(plan.folder)!r} contains other files, which could be overwritten. Give a new or an empty folder as "
            "--output."
        )
    recipe.write_text(plan.recipe.read_text())
    write_whole(path, json.dumps(now, indent=1, default=str) + "\n")


def _digest(file: Path) -> str | None:
    """A hash of a file's content. None for a data set that is not a file: a generated task, or one of the Hub."""
    if not file.is_file():
        return None
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
