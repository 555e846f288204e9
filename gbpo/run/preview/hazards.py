"""Settings that are allowed and usually a mistake, found before training, and one that shows only in training."""

import contextlib
import json
import logging
import math
import sys
from collections.abc import Iterator

from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig

from ...trainer.config import GBPOConfig
from ...trainer.guards.vllm_weights import biased_sampling
from ..models.description import Description
from ..recipe.parsing import Recipe
from .memory import Sharding

_MOSTLY = 0.5  # share of completions
_WATCHED = 3  # logging steps


def find(
    recipe: Recipe,
    train_set: Dataset,
    eval_set: Dataset | None,
    description: Description,
    prompt_tokens: int,
) -> list[str]:
    """One line for each hazard of the recipe: the value, the consequence and the mend.

    Args:
        prompt_tokens: Tokens of the longest prompt.
    """
    args = recipe.training
    found = args.hazards() if isinstance(args, GBPOConfig) else []
    if args.num_generations == 2:
        found.append(
            "num_generations=2: a group says only which of two completions is better, and nothing where both earn the "
            "same. Write 8 or more."
        )
    found += _window(args, description, prompt_tokens)
    found += _temperature(args)
    found += _rounded_away(recipe, description)
    found += _cancelling_weights(recipe)
    found += _dropout(recipe)
    if biased := biased_sampling(args):
        found.append(biased)
    if eval_set is not None:
        found += overlap(train_set, eval_set)
    return found


@contextlib.contextmanager
def said_by_the_run() -> Iterator[None]:
    """Keeps `GBPOTrainer` silent about the hazards of its configuration, which `find` has."""
    logger = logging.getLogger("gbpo.trainer.gbpo")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


class MostlyTruncated(TrainerCallback):
    """Warns once when most of the first completions were cut off at `max_completion_length`."""

    def __init__(self) -> None:
        self._ratios: list[float] = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        ratio = (logs or {}).get("completions/clipped_ratio")
        if ratio is None or len(self._ratios) == _WATCHED:
            return
        self._ratios.append(ratio)
        if len(self._ratios) < _WATCHED or not state.is_world_process_zero:
            return
        mean = sum(self._ratios) / _WATCHED
        if mean > _MOSTLY:
            print(
                f"gbpo: warning: max_completion_length={args.max_completion_length} cut off {mean:.0%} of the "
                "completions so far: most never reach their answer, and earn or lose by where they were cut. Write a "
                "longer one, or mask_truncated_completions: true.",
                file=sys.stderr,
                flush=True,
            )


def _window(args: GRPOConfig, description: Description, prompt_tokens: int) -> list[str]:
    window = getattr(description.config.get_text_config(), "max_position_embeddings", None)
    name = "the model's window"
    if args.use_vllm and args.vllm_max_model_length is not None:
        window, name = args.vllm_max_model_length, "vllm_max_model_length"
    if window is None or prompt_tokens + args.max_completion_length <= window:
        return []
    return [
        f"the longest prompt has {prompt_tokens:,} tokens, and with max_completion_length={args.max_completion_length} "
        f"it passes {name} of {window:,}: what comes after is noise, or an error of the engine. Drop long prompts, or "
        + (
            f"write max_completion_length: {window - prompt_tokens}."
            if prompt_tokens < window
            else "take another model."
        )
    ]


def _temperature(args: GRPOConfig) -> list[str]:
    """TRL scores at the sampling temperature; a vLLM server does so only if it is started that way."""
    server = args.use_vllm and args.vllm_mode == "server" and args.vllm_importance_sampling_correction
    if args.temperature == 1.0 or not server:
        return []
    return [
        f"temperature={args.temperature} with a vLLM server: by default a server reports log-probs at temperature 1, "
        "and the sampling correction then compares two different policies. Start it with --logprobs-mode "
        "processed_logprobs, or write temperature: 1.0."
    ]


def _rounded_away(recipe: Recipe, description: Description) -> list[str]:
    """Adam moves a weight by about the learning rate; bfloat16 rounds to the nearest of 128 values per power of two."""
    args = recipe.training
    sharding = Sharding.of(args)
    low = recipe.model.dtype == "bfloat16" and not recipe.model.use_peft
    if not low or sharding.masters or (sharding.upcast and args.bf16):
        return []
    typical = getattr(description.config.get_text_config(), "initializer_range", None) or 0.02
    smallest = 2.0 ** (math.floor(math.log2(typical)) - 8)  # half of the spacing at that magnitude
    if args.learning_rate >= smallest:
        return []
    return [
        f"dtype='bfloat16' with learning_rate={args.learning_rate:g}: a weight of {typical:g} keeps no change below "
        f"{smallest:.1g}, so that most updates are rounded away. Write dtype: float32 with bf16: true, or use_peft: "
        "true."
    ]


def _dropout(recipe: Recipe) -> list[str]:
    model = recipe.model
    if not model.use_peft or model.lora_dropout == 0 or recipe.training.disable_dropout:
        return []
    return [
        f"lora_dropout={model.lora_dropout}: two passes over the same tokens differ by it, so that the ratio takes its "
        "noise for a change of the policy. Write lora_dropout: 0.0."
    ]


def _cancelling_weights(recipe: Recipe) -> list[str]:
    weights, names = recipe.training.reward_weights, recipe.run.reward_funcs or []
    if weights is None:
        return []
    for i, name in enumerate(names):
        for j in range(i):
            if names[j] == name and weights[i] == -weights[j] != 0:
                return [
                    f"reward_weights={weights}: {name!r} stands there twice, with {weights[j]:g} and {weights[i]:g}, "
                    "and the two cancel. Remove one."
                ]
    if sum(weights) <= 0:
        return [
            f"reward_weights={weights} sum to {sum(weights):g}: a completion that earns every reward gains nothing "
            "over one that earns none. Write a larger weight for what is wanted."
        ]
    return []


def overlap(train_set: Dataset, eval_set: Dataset) -> list[str]:
    """A line when evaluation prompts are trained on."""
    seen = {json.dumps(prompt) for prompt in train_set["prompt"]}
    count = sum(json.dumps(prompt) in seen for prompt in eval_set["prompt"])
    if not count:
        return []
    return [
        f"{count} of {len(eval_set)} prompts of the evaluation set are in the training set too, so the evaluation "
        "shows what was learnt by heart as well. Drop them from one of the two."
    ]
