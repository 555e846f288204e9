"""Is one algorithm better than another on your task, and is it luck?

    python -m evals.compare recipes/tiny_math.yaml --algorithms grpo gbpo gbpo:target_baseline=exact \
        --seeds 0 1 2 3 4 --grid epsilon=0.2,0.3 num_iterations=1,4 --output runs/compare [--field value …]

runs the recipe once for every algorithm, point of the grid and seed, each as a process of its own, with the same
prompts in the same order, the same starting model and the same held-out questions; evaluates what each run ends with
and its best checkpoint; and writes `report.html`, `summary.md`, `figures/` and `results.json`. The same command again
goes on where it stopped; more seeds, algorithms or values of the grid are added to what is there. Exit status: 0 when
every cell is done, 1 when one failed, 2 for bad input, 130 when interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from datasets import Dataset
from filelock import FileLock, Timeout

from gbpo.run.data import loading as data
from gbpo.run.models import catalogue as models
from gbpo.run.preview import hazards
from gbpo.run.recipe import parsing as recipes
from gbpo.run.recipe.arguments import RunArguments
from gbpo.run.recipe.parsing import Recipe
from gbpo.run.rewards import load_rewards, named_rewards
from gbpo.run.train import check_enough_prompts

from ..evaluate.command import Settings
from ..report import command as report
from ..report.analysis import analyse
from . import runner
from .cells import describe, notes, points, read_grid
from .collect import collect
from .folder import RECIPE, TEST, VALIDATION, Comparison, write_json

_SET_HERE = {"seed": "--seeds", "algorithm": "--algorithms", "output_dir": "--output"}
_MANIFEST = "comparison.json"


def main(argv: Sequence[str] | None = None) -> None:
    """Run a comparison and write its report; the module says how it is used."""
    argv = list(sys.argv[1:] if argv is None else argv)
    data.quiet()
    options, overrides = _parser().parse_known_args(argv)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        with FileLock(options.output / ".lock").acquire(timeout=0):
            comparison = prepare(options, overrides, shlex.join(["python", "-m", "evals.compare", *argv]))
            interrupted = runner.run(comparison)
            results = collect(comparison)
            results.save(comparison.folder)
    except Timeout:
        _refuse(f"Another comparison writes {str(options.output)!r}. Wait for it, or give another --output.")
    except (ValueError, ImportError, OSError, runner.CellError) as error:
        _refuse(" ".join(str(error).split()))
    analysis = analyse(results)
    report.write(results, analysis, comparison.folder)
    for found in analysis.comparisons:
        print(f"{describe(found.setting)}: {found.verdict}")
    unfinished = [cell for cell in results.cells if cell.status != "done"]
    if unfinished:
        print(f"{len(unfinished)} of {len(results.cells)} cells are not done; the same command again tries them.")
    print(f"report: {comparison.folder / 'report.html'}")
    raise SystemExit(130 if interrupted else 1 if unfinished else 0)


def prepare(options: argparse.Namespace, overrides: list[str], command: str) -> Comparison:
    """Check all that can be checked before a model is loaded, and write recipe and questions into the folder.

    Raises:
        ValueError: The recipe, its data or the folder is refused, or the comparison cannot show a difference.
    """
    if len(set(options.seeds)) < len(options.seeds):
        raise ValueError(f"--seeds {' '.join(map(str, options.seeds))} names one twice. Write each once.")
    for name, option in _SET_HERE.items():
        if any(flag.partition("=")[0] == f"--{name}" for flag in overrides):
            raise ValueError(f"--{name} is given, but the comparison sets it for each run. Write {option}.")
    grid = read_grid(options.grid)
    found = points(options.recipe, options.algorithms, grid, overrides)
    recipe = found[0].recipe
    held_out = options.eval_dataset_name or recipe.run.eval_dataset_name
    run = dataclasses.replace(recipe.run, eval_dataset_name=held_out)
    train_set, eval_set = data.load(run, evaluation=True)
    assert eval_set is not None  # because it was asked for
    models.check_model_name(recipe.model.model_name_or_path)
    load_rewards(run, train_set)
    load_rewards(_evaluated_by(options, run), eval_set)
    for point in found:
        check_enough_prompts(point.recipe, len(train_set))
        recipes.parse([str(options.recipe), *overrides, *runner.cell_flags(point, options.eval_steps)])
    comparison = Comparison(
        folder=options.output.resolve(),
        recipe=options.recipe,
        overrides=overrides,
        algorithms=options.algorithms,
        grid=grid,
        seeds=options.seeds,
        points=found,
        eval_steps=options.eval_steps,
        evaluation=_evaluation_flags(options, recipe),
        launcher=shlex.split(options.launcher) if options.launcher else [sys.executable],
        jobs=options.jobs,
        notes=[*notes(found), *hazards.overlap(train_set, eval_set)],
        command=command,
    )
    _hold_to_the_first(comparison, held_out, options.eval_questions)
    _write_questions(comparison.folder, data.held_out(run, len(train_set)), options.eval_questions)
    return comparison


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evals.compare",
        usage="%(prog)s RECIPE --algorithms A B … --seeds 0 1 … --output DIR [options] [--field value …]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("recipe", type=Path, help="the recipe that every run takes")
    add("--algorithms", nargs="+", required=True, help="grpo, gbpo, or with fields gbpo:target_baseline=exact,…")
    add("--seeds", nargs="+", type=int, required=True, help="five or more tell something")
    add("--output", type=Path, required=True, help="folder of the comparison")
    add("--grid", nargs="+", default=[], metavar="FIELD=V,V", help="fields whose values are all tried")
    add("--jobs", type=int, default=1, help="runs at a time; on several GPUs each takes one")
    add("--launcher", help="what runs launch/gbpo.py, for example 'accelerate launch --num_processes 8'")
    add("--eval_dataset_name", help="held-out questions: a file or a Hub id; else the test split of the recipe")
    add("--eval_steps", type=float, help="steps from one validation to the next; else as the recipe, or 20 in a run")
    add("--eval_questions", type=int, default=512, help="at most so many: half to validate, half to test (512)")
    add("--eval_reward", help="name of the reward that tests; else the first of the recipe")
    add("--eval_samples", type=int, default=16, help="completions of each test question (16)")
    add("--eval_temperature", type=float, help="else the recipe's temperature")
    add("--eval_top_p", type=float, help="else the recipe's top_p")
    return parser


def _refuse(error: str) -> NoReturn:
    print(f"evals.compare: error: {error}", file=sys.stderr, flush=True)
    raise SystemExit(2)


def _evaluated_by(options: argparse.Namespace, run: RunArguments) -> RunArguments:
    """The recipe's arguments with the one reward that tests.

    Raises:
        ValueError: It would be the majority's opinion.
    """
    rewards = named_rewards(run)
    name = options.eval_reward or next(iter(rewards))
    if name == "majority_vote":
        raise ValueError(
            "reward_funcs=['majority_vote'] pays for what most samples say, right or wrong, and so does not tell which "
            "algorithm is better. Write --eval_reward, for example --eval_reward math."
        )
    return dataclasses.replace(run, reward_funcs=[name], reward_kwargs={name: rewards.get(name, {})})


def _evaluation_flags(options: argparse.Namespace, recipe: Recipe) -> list[str]:
    """What `evals.evaluate` is told beside models, data and output.

    Raises:
        ValueError: It would refuse them.
    """
    run, args = _evaluated_by(options, recipe.run), recipe.training
    assert run.reward_funcs is not None
    sampling = {
        "samples": options.eval_samples,
        "temperature": args.temperature if options.eval_temperature is None else options.eval_temperature,
        "top_p": args.top_p if options.eval_top_p is None else options.eval_top_p,
        "max_tokens": args.max_completion_length,
    }
    Settings(run, **sampling)
    values = {
        "reward": run.reward_funcs[0],
        "reward_kwargs": json.dumps(run.reward_kwargs[run.reward_funcs[0]]),
        "columns": json.dumps(run.dataset_columns),
        **sampling,
        "system_prompt": run.system_prompt,
        "prompt_template": run.prompt_template,
        "chat_template_path": run.chat_template_path,
    }
    return [f"--{name}={value}" for name, value in values.items() if value is not None]


def _hold_to_the_first(comparison: Comparison, held_out: str | None, questions: int) -> None:
    """Keep what every cell of the folder shares, and the recipe; refuse cells that would not be comparable.

    Raises:
        ValueError: The folder holds cells of another recipe, other overrides or another evaluation.
    """
    path, recipe = comparison.folder / _MANIFEST, comparison.folder / RECIPE
    now = {
        "recipe": comparison.recipe.read_text(),
        "overrides": comparison.overrides,
        "launcher": comparison.launcher,
        "evaluation": comparison.evaluation,
        "eval_steps": comparison.eval_steps,
        "eval_dataset_name": held_out,
        "eval_questions": questions,
    }
    before: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else now
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        raise ValueError(
            f"{str(comparison.folder)!r} holds runs with another {', '.join(changed)}, not to be compared with these. "
            "Give another --output, or the command as before: only algorithms, seeds and values may be added."
        )
    if not path.is_file() and any(comparison.folder.glob("[!.]*")):
        raise ValueError(f"{str(comparison.folder)!r} holds other files. Give a new or an empty folder as --output.")
    recipe.write_text(comparison.recipe.read_text())
    write_json(path, now)


def _write_questions(folder: Path, held_out: Dataset, count: int) -> None:
    """Write the held-out questions, one to validate and one to test in turn.

    Raises:
        ValueError: There are not two.
    """
    count = min(count, len(held_out))
    if count < 2:
        raise ValueError(
            f"{count} held-out question(s) cannot be split into those that choose a checkpoint and those that test it. "
            "Give more, or write a larger --eval_questions."
        )
    for name, rows in ((VALIDATION, range(0, count, 2)), (TEST, range(1, count, 2))):
        held_out.select(rows).to_json(folder / name, force_ascii=False)
