"""What a run will do, reckoned from its recipe before anything is loaded."""

from .recipe import Recipe


def one_line(recipe: Recipe, rows: int) -> str:
    """Prompts, completions and optimiser steps of one generation, for a training set of `rows` prompts."""
    args = recipe.training
    updates = args.steps_per_generation * args.num_iterations / args.gradient_accumulation_steps
    return (
        f"{recipe.run.algorithm} on {recipe.run.dataset_name} ({rows} prompts), {args.device}, {args.world_size} "
        f"process(es): {args.generation_batch_size // args.num_generations} prompts × {args.num_generations} "
        f"completions per generation, {updates:g} optimiser step(s) on each; output in {args.output_dir}"
    )
