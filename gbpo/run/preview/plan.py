"""What a run will do, reckoned from its recipe before anything is loaded."""

from dataclasses import dataclass
from math import ceil

from ..recipe.parsing import Recipe


@dataclass(frozen=True)
class Plan:
    """The arithmetic of a run: how much is generated at a time, how often it is trained on, and how long.

    Args:
        prompts: Prompts of one generation, over all ranks.
        completions: Completions of one generation, over all ranks.
        updates: Optimiser steps on each generation.
        per_update: Completions, over all ranks, whose gradients make one optimiser step.
        steps: Optimiser steps of the whole run.
        epochs: Passes over the training set.
    """

    prompts: int
    completions: int
    updates: float
    per_update: int
    steps: int
    epochs: float

    @classmethod
    def of(cls, recipe: Recipe, rows: int) -> "Plan":
        """The plan of a recipe for a training set of `rows` prompts."""
        args = recipe.training
        prompts = args.generation_batch_size // args.num_generations
        passes = args.steps_per_generation * args.num_iterations  # micro-batches of each rank per generation
        # TRL leaves out the prompts that do not fill a generation
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
    """Prompts, completions and optimiser steps of one generation, for a training set of `rows` prompts."""
    args, plan = recipe.training, Plan.of(recipe, rows)
    return (
        f"{recipe.run.algorithm} on {recipe.run.dataset_name} ({rows} prompts), {args.device}, {args.world_size} "
        f"process(es): {plan.prompts} prompts × {args.num_generations} completions per generation, {plan.updates:g} "
        f"optimiser step(s) on each; output in {args.output_dir}"
    )
