"""The defaults of the evaluation in training, which make it early and cheap."""

from collections.abc import Sequence
from typing import Any

from .parsing import Recipe

COMPLETIONS = 2  # of each prompt; a mean over many prompts needs few


def set_evaluation(recipe: Recipe, rewards: Sequence[Any]) -> None:
    """Evaluate before the first step, and with few completions per prompt, unless the recipe sets these fields.

    Rewards that vote depend on the number of completions, so they keep the number of the training.

    Args:
        recipe: The recipe, whose `eval_on_start` and `num_generations_eval` are changed.
        rewards: The loaded rewards. Those that vote have an attribute `votes`.
    """
    args = recipe.training
    if args.eval_strategy == "no":
        return
    if "eval_on_start" not in recipe.given:
        args.eval_on_start = True
    batch = args.per_device_eval_batch_size * args.world_size
    votes = any(hasattr(reward, "votes") for reward in rewards)
    if "num_generations_eval" not in recipe.given and not votes and batch % COMPLETIONS == 0:
        args.num_generations_eval = COMPLETIONS
