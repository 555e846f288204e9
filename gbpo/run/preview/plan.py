"""The batch arithmetic of a run, computed from its recipe before anything is loaded."""

from dataclasses import dataclass
from math import ceil

from ..recipe.parsing import Recipe


@dataclass(frozen=True)
class StepPlan:
    """Number of completions of a generation, number of optimiser steps on each generation, and length of the run.

    Args:
        prompts: Prompts per generation, over all ranks.
        completions: Completions per generation, over all ranks.
        updates: Optimiser steps per generation.
        per_update: Completions per optimiser step, over all ranks.
        steps: Optimiser steps of the whole run.
        epochs: Passes over the training set in the whole run.
    """

    prompts: int
    completions: int
    updates: float
    per_update: int
    steps: int
    epochs: float

    @classmethod
    def of(cls, recipe: Recipe, rows: int) -> "StepPlan":
        """The plan of a recipe for a training set of `rows` prompts."""
        args = recipe.training
        prompts = args.generation_batch_size // args.num_generations
        passes = args.steps_per_generation * args.num_iterations  # micro-batches of each rank per generation
        # TRL drops the prompts that do not fill a generation
        epoch = max(ceil(rows // prompts * passes / args.gradient_accumulation_steps), 1)
        steps = args.max_steps if args.max_steps > 0 else ceil(args.num_train_epochs * epoch)
        return cls(
            prompts=prompts,
            completions=args.generation_batch_size,
            updates=passes / args.gradient_accumulation_steps,
            per_update=args.per_device_train_batch_size * args.world_size * args.gradient_accumulation_steps,
            steps=steps,
            epochs=steps / epoch,
        )


def one_line(recipe: Recipe, rows: int) -> str:
    """The plan in one line, for a training set of `rows` prompts."""
    args, plan = recipe.training, StepPlan.of(recipe, rows)
    return (
        f"{recipe.run.algorithm} on {recipe.run.dataset_name} ({rows} prompts), {args.device}, {args.world_size} "
        f"process(es): {plan.prompts} prompts × {args.num_generations} completions per generation, {plan.updates:g} "
        f"optimiser step(s) on each; output in {args.output_dir}"
    )
