"""The command line of a cell, that is of one run: one algorithm at one grid point with one seed."""

from __future__ import annotations

from gbpo.shared.packages import launch_words

from .plan import RECIPE, VALIDATION, ComparisonPlan
from .point import Point


def cell_command(plan: ComparisonPlan, point: Point, seed: int) -> list[str]:
    """Command that runs a cell. If the cell shares the run of an earlier cell, the command of the earlier cell."""
    point = point.same_as or point
    return [
        *plan.launcher,
        *launch_words(),
        str(plan.folder / RECIPE),
        *plan.overrides,
        *cell_flags(point, plan.eval_steps),
        f"--eval_dataset_name={plan.folder / VALIDATION}",
        f"--seed={seed}",
        f"--output_dir={plan.cell_folder(point, seed).run}",
    ]


def cell_flags(point: Point, eval_steps: float | None) -> list[str]:
    """Flags that every cell needs in addition to its recipe.

    With these flags, the run validates before its first step and then every `eval_steps`. The default of `eval_steps`
    is the recipe's value, or 20 validations per run. The run keeps its last and its best checkpoint, and resumes after
    an interruption. A collapse does not stop the run, because a collapse is a result of the comparison.
    """
    args, given = point.recipe.training, point.recipe.given
    few = args.num_generations_eval if "num_generations_eval" in given else None
    group = few or args.num_generations  # all of them, because a comparison needs exact means
    batch = max(args.per_device_train_batch_size // group, 1) * group
    every = eval_steps or (args.eval_steps if "eval_steps" in given else 0.05)  # below 1: a fraction of all steps
    return [
        *point.flags,
        *("--eval_strategy=steps", f"--eval_steps={every}", "--eval_on_start=true"),
        f"--num_generations_eval={group}",
        *([] if "per_device_eval_batch_size" in given else [f"--per_device_eval_batch_size={batch}"]),
        *("--save_strategy=steps", f"--save_steps={every}", "--save_total_limit=2"),
        *("--metric_for_best_model=eval_reward", "--greater_is_better=true"),
        *("--resume_from_checkpoint=auto", "--stop_on_collapse=false"),
    ]
