"""Compare algorithms on your task over several seeds.

    gbpo compare tiny_math --algorithms grpo gbpo gbpo:target_baseline=exact
        --seeds 0 1 2 3 4 --grid epsilon=0.2,0.3 num_iterations=1,4

runs the recipe once for every algorithm, grid point and seed. Each run is a process of its own. All runs use the same
prompts in the same order (with `difficulty` only in the first pass over the training set), the same starting model and
the same held-out questions. The command then evaluates the final model and the best checkpoint of each run and writes
`report.html`, `summary.md`, `figures/` and `results.json`.

The same command again continues an interrupted comparison, also with more seeds, algorithms or grid values. Fields of
the recipe can follow. Exit status: 0 if every run is done, 1 if a run failed, 2 for bad input, 130 if interrupted.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from gbpo.run.data import loading as data
from gbpo.shared.command_line import OneLineErrorParser, OneScreenHelp, seed
from gbpo.shared.packages import find_recipe

from ..report import page
from ..report.analysis import analyse
from ..report.answer import console
from ..report.run_numbers import mean_name
from .collect_results import collect_results
from .prepare import prepare
from .run_cells import CellError, run_cells


def main(argv: Sequence[str] | None = None) -> None:
    """Run a comparison and write its report. An interrupt ends the command with status 130."""
    try:
        _compare(argv)
    except KeyboardInterrupt:  # before the first run or after the last one; `run_cells` handles the others
        raise SystemExit(130) from None


def _compare(argv: Sequence[str] | None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    data.quiet()
    parser = make_parser()
    options, overrides = parser.parse_known_args(argv)
    options.output = options.output or Path("runs") / f"compare-{options.recipe.stem}"
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(
            f"--output {str(options.output)!r} cannot be made a folder ({error.strerror}), so no results can be "
            "written. Give another --output."
        )
    try:
        with FileLock(options.output / ".lock").acquire(timeout=0):
            try:
                plan = prepare(options, overrides, shlex.join(["gbpo", "compare", *argv]))
                interrupted = run_cells(plan)
                results = collect_results(plan)
                results.save(plan.folder)
            finally:
                if os.listdir(options.output) == [".lock"]:  # refused before anything was written
                    shutil.rmtree(options.output)
    except Timeout:
        parser.error(
            f"{str(options.output)!r} is in use by another comparison, and both would write the same files. Wait until "
            "the other comparison ends, or give another --output."
        )
    except (ValueError, ImportError, CellError) as error:
        parser.error(error)
    except OSError as error:
        parser.error(
            f"{error}. The comparison ended, and its finished runs are kept. Repair this, for example free some space, "
            "and run the same command again."
        )
    analysis = analyse(results)
    print("\n".join(console(analysis, mean_name(results))))
    unfinished = [cell for cell in results.cells if cell.status != "done"]
    if unfinished:
        print(f"{len(unfinished)} of {len(results.cells)} runs are not done. Run the same command again to retry them.")
    try:
        page.write(results, analysis, plan.folder)
    except ValueError as error:
        parser.error(error)
    print(f"report: {plan.folder / 'report.html'}")
    raise SystemExit(130 if interrupted else 1 if unfinished else 0)


def make_parser() -> OneLineErrorParser:
    """The parser of the command, without the fields of the recipe."""
    parser = OneLineErrorParser(
        prog="gbpo compare",
        usage="%(prog)s RECIPE --algorithms A B … --seeds 0 1 …\n           [--output DIR] [options] [--field value …]",
        description=__doc__,
        formatter_class=OneScreenHelp,
        allow_abbrev=False,
        without="Without them there is nothing to compare. Write gbpo compare tiny_math --algorithms grpo gbpo "
        "--seeds 0 1 2 3 4, for example.",
    )
    add = parser.add_argument
    add("recipe", type=find_recipe, help="recipe of all runs: a file or the name of a shipped recipe")
    add("--algorithms", nargs="+", required=True, metavar="A", help="grpo, gbpo, or gbpo:FIELD=VALUE,…")
    add("--seeds", nargs="+", type=seed, required=True, metavar="N", help="seeds of the runs; use five or more")
    add("--output", type=Path, metavar="DIR", help="folder of the comparison (runs/compare-RECIPE)")
    add("--grid", nargs="+", default=[], metavar="FIELD=V,V", help="fields to vary, with their values")
    add("--jobs", type=int, default=1, metavar="N", help="parallel runs; they share out the GPUs (1)")
    add("--launcher", metavar="X", help="command of each run, such as 'accelerate launch --num_processes 8'")
    add("--eval_dataset_name", metavar="X", help="held-out questions: a file or a Hub id (the recipe's test split)")
    add("--eval_steps", type=float, metavar="N", help="steps between validations (the recipe's, or 20 validations)")
    add("--eval_questions", type=int, default=512, metavar="N", help="held-out questions, half for the test (512)")
    add("--eval_reward", metavar="NAME", help="reward of the test (the environment's, or the recipe's first)")
    add("--eval_samples", type=int, default=16, metavar="N", help="completions per test question (16)")
    add("--eval_temperature", type=float, metavar="X", help="sampling temperature of the test (the recipe's)")
    add("--eval_top_p", type=float, metavar="X", help="top_p of the test (the recipe's)")
    return parser
