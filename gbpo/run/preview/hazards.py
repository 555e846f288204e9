"""Warnings about settings that are allowed but usually a mistake."""

import contextlib
import math
import sys
import warnings
from collections.abc import Iterator

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig

from ...trainer.config import GBPOHazard
from ...trainer.sampling.unbiased import biased_sampling
from .. import reward_hazards
from ..data.images import prompt_keys
from ..data.prompts import PromptFormat
from ..models.chat_templates import unread_variables
from ..models.description import Description
from ..recipe.parsing import Recipe
from .device import Device
from .memory import Estimate, Sharding, gibibytes, in_phase
from .plan import StepPlan

_MOSTLY = 0.5  # fraction of completions
_WATCHED = 3  # logging steps


def find(
    recipe: Recipe,
    train_set: Dataset,
    eval_set: Dataset | None,
    description: Description,
    prompt_tokens: int,
) -> list[str]:
    """Find the hazards of a recipe.

    Args:
        recipe: The parsed recipe.
        train_set: The training set, with the column `prompt`.
        eval_set: The evaluation set, if there is one.
        description: The configuration and the tokenizer of the model.
        prompt_tokens: Length of the longest prompt, in tokens.

    Returns:
        One line per hazard, with the value, the consequence and the fix.
    """
    args = recipe.training
    found = args.hazards()
    if args.num_generations == 2:
        found.append(
            "num_generations=2: a group only shows which of two completions is better. If both get the same reward, "
            "nothing is learnt from the group. Write 8 or more."
        )
    found += _window(args, description, prompt_tokens)
    found += _temperature(args)
    found += _difficulty(recipe, len(train_set))
    found += _rounded_away(recipe, description)
    found += of_prompts_and_rewards(recipe, train_set, description)
    found += _cancelling_weights(recipe)
    found += _dropout(recipe)
    found += _compiled(args)
    if biased := biased_sampling(args):
        found.append(biased)
    if eval_set is not None:
        found += overlap(train_set, eval_set)
    return found


def of_prompts_and_rewards(recipe: Recipe, train_set: Dataset, description: Description) -> list[str]:
    """The hazards of the prompts and of the rewards of a recipe, as `find`."""
    args, tokenizer = recipe.training, description.tokenizer
    form = PromptFormat.of(recipe)
    return [
        *unread_variables(form, tokenizer),
        *reward_hazards.find(
            recipe.run,
            form,
            train_set,
            tokenizer,
            args.max_completion_length,
            masks_truncated=args.mask_truncated_completions,
        ),
    ]


def of_memory(estimate: Estimate, device: Device, plain: int, checkpointed: int) -> list[str]:
    """Find what does not fit in the memory of a device.

    Args:
        estimate: The memory of a rank.
        device: The device of each rank.
        plain: Tokens of the largest forward pass that fits without activation checkpointing; 0 if none does.
        checkpointed: The same with activation checkpointing.

    Returns:
        One line per hazard, as `find`.
    """
    found, parts, one = [], estimate.parts(device.memory), estimate.training_pass
    lacks = estimate.vllm and estimate.vllm.lacks(device.memory)
    if lacks:
        found.append(lacks)
    needed = {phase: in_phase(phase, parts) for phase in ("training", "generation")}
    over = f"but {device.name} has {gibibytes(device.memory)}: the run would end when memory runs out."
    if needed["training"] > device.memory:
        args = one.recipe.training
        fits = checkpointed if args.activation_checkpointing else plain
        fix = f"Write {one.field}: {one.as_value(fits)}."
        if not fits and checkpointed:
            fix = f"Write activation_checkpointing: true and {one.field}: {one.as_value(checkpointed)}."
        elif not fits:
            fix = "Not even one row fits: shard the model over more GPUs, write use_peft: true, or use a larger GPU."
        cause = one.field if getattr(args, one.field) is not None else "per_device_train_batch_size"
        need = gibibytes(needed["training"])
        found.append(f"{cause}={getattr(args, cause)}: training needs about {need}, {over} {fix}")
    elif needed["generation"] > device.memory:
        found.append(
            f"generation_batch_size={one.recipe.training.generation_batch_size}: generation needs about "
            f"{gibibytes(needed['generation'])}, {over} Write a smaller one, or use_vllm: true."
        )
    return found


@contextlib.contextmanager
def without_config_warnings() -> Iterator[None]:
    """Silence the warnings of `GBPOTrainer` about its configuration. `find` returns the same warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GBPOHazard)
        yield


class MostlyTruncated(TrainerCallback):
    """Warns once if most of the first completions were cut off at `max_completion_length`."""

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
                "completions so far: most end before their answer, so their reward depends on where they were cut. "
                "Write a larger value, or mask_truncated_completions: true.",
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
    fixes = [
        f"{field}: {window - tokens}"
        for field, tokens in {
            "max_prompt_tokens": args.max_completion_length,
            "max_completion_length": prompt_tokens,
        }.items()
        if tokens < window
    ] or ["a smaller max_completion_length"]
    return [
        f"the longest prompt has {prompt_tokens:,} tokens, and with max_completion_length={args.max_completion_length} "
        f"it exceeds {name} of {window:,}: later tokens are noise or raise an error. Write " + " or ".join(fixes) + "."
    ]


def _temperature(args: GRPOConfig) -> list[str]:
    """Warn if the vLLM server may compute log-probs at another temperature than TRL, which uses that of sampling."""
    reads = args.vllm_importance_sampling_correction or getattr(args, "ratio_anchor", None) == "sampler"
    server = args.use_vllm and args.vllm_mode == "server" and reads
    if args.temperature == 1.0 or not server:
        return []
    return [
        f"temperature={args.temperature} with a vLLM server: by default a server reports log-probs at temperature 1, "
        "so the trainer would compare two different policies. Start the server with --logprobs-mode "
        "processed_logprobs, or write temperature: 1.0."
    ]


def _difficulty(recipe: Recipe, rows: int) -> list[str]:
    """Warn if the order of prompts cannot depend on their solve rates, or can hardly."""
    args, plan = recipe.training, StepPlan.of(recipe, rows)
    if not args.difficulty:
        return []
    found = []
    if plan.epochs <= 1 and not args.resample_zero_signal_groups:
        found.append(
            f"difficulty={args.difficulty} has no effect: the run sees each prompt {plan.epochs:.2g} times, and the "
            "first pass over the training set has the usual order. Write a larger max_steps, give fewer prompts, or "
            "remove difficulty."
        )
    if rows < 2 * plan.prompts:
        found.append(
            f"difficulty={args.difficulty} can leave out few prompts: every generation takes {plan.prompts} of the "
            f"{rows} prompts, whatever their solve rates. Give more prompts, or write a smaller generation_batch_size."
        )
    return found


def _rounded_away(recipe: Recipe, description: Description) -> list[str]:
    """Warn if updates are too small to change bfloat16 weights.

    Adam changes a weight by about the learning rate, and bfloat16 has only 128 values per power of two.
    """
    args = recipe.training
    sharding = Sharding.of(args)
    low = recipe.model.dtype == "bfloat16" and not recipe.model.use_peft
    if not low or sharding.masters or (sharding.upcast and args.bf16):
        return []
    typical = getattr(description.config.get_text_config(), "initializer_range", None) or 0.02
    smallest = 2.0 ** (math.floor(math.log2(typical)) - 8)  # half the spacing of bfloat16 at that magnitude
    if args.learning_rate >= smallest:
        return []
    return [
        f"dtype='bfloat16' with learning_rate={args.learning_rate:g}: changes of a weight of {typical:g} below "
        f"{smallest:.1g} are rounded away, which is most updates. Write dtype: float32 with bf16: true, or use_peft: "
        "true."
    ]


def _dropout(recipe: Recipe) -> list[str]:
    model = recipe.model
    if not model.use_peft or model.lora_dropout == 0 or recipe.training.disable_dropout:
        return []
    return [
        f"lora_dropout={model.lora_dropout}: two forward passes over the same tokens differ by the dropout noise, and "
        "the ratio would treat this noise as a change of the policy. It also switches off the speed-ups share_prompts "
        "and reuse_first_pass. Remove lora_dropout, whose default is 0."
    ]


def _compiled(args: GRPOConfig) -> list[str]:
    if not args.torch_compile:
        return []
    return [
        "torch_compile=True: the model is compiled again for new shapes of a pass, which takes minutes, and after "
        f"{torch._dynamo.config.recompile_limit} times it runs without compilation. Widths are rounded up to 16 per "
        "doubling, and gbpo/pass_shapes counts the shapes. If this number keeps growing, write torch_compile: false."
    ]


def _cancelling_weights(recipe: Recipe) -> list[str]:
    weights, names = recipe.training.reward_weights, recipe.run.reward_funcs or []
    if weights is None:
        return []
    for i, name in enumerate(names):
        for j in range(i):
            if names[j] == name and weights[i] == -weights[j] != 0:
                return [
                    f"reward_weights={weights}: {name!r} is given twice, with {weights[j]:g} and {weights[i]:g}, "
                    "which cancel each other. Remove one."
                ]
    if sum(weights) <= 0:
        return [
            f"reward_weights={weights} sum to {sum(weights):g}: a completion that gets every reward scores no higher "
            "than a completion that gets none. Write larger positive weights."
        ]
    return []


def overlap(train_set: Dataset, eval_set: Dataset) -> list[str]:
    """A warning if the training set contains prompts of the evaluation set."""
    seen = set(prompt_keys(train_set))
    count = sum(key in seen for key in prompt_keys(eval_set))
    if not count:
        return []
    return [
        f"{count} of {len(eval_set)} prompts of the evaluation set are also in the training set, so the evaluation "
        "also measures memorization. Remove these prompts from one of the two sets."
    ]
