"""`--dry_run true` prints what a run would do, without loading the model or writing a file."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
from trl.trainer.utils import get_callable_name

from ...shared.provenance import installed_version
from ...trainer.config import Band, BaseConfig
from ...trainer.passes.speedups import SPEEDUPS, decide
from ...trainer.sampling.vllm_client import server_url
from ..data.prompts import PromptFormat
from ..environments.checks import Episodes, first_rows
from ..environments.episode import close, tool_methods
from ..models import attention, catalogue
from ..models.chat_templates import check_recipe_prompts
from ..models.description import describe
from ..recipe.parsing import Recipe
from ..rewards import columns_read
from ..rewards_package import rewards_module
from ..tools.named_tools import PYTHON
from ..tools.template import tool_template
from . import hazards, memory
from .device import device_here
from .plan import StepPlan
from .training_pass import TrainingPass

_WIDTH = 110


def report(
    recipe: Recipe,
    train_set: datasets.Dataset,
    eval_set: datasets.Dataset | None,
    rewards: Sequence[Callable[..., Any]],
    output: Path,
    episodes: Episodes,
) -> str:
    """The page that `--dry_run true` prints.

    Args:
        recipe: The parsed recipe.
        train_set: The training set.
        eval_set: The evaluation set, if there is one.
        rewards: The rewards.
        output: The output folder that the run would write to.
        episodes: The environments of the recipe.

    Raises:
        ValueError: The configuration or the tokenizer of the model cannot be read.
    """
    lines = [f"{recipe.path.stem}: {recipe.run.algorithm} on {recipe.run.dataset_name}, {len(train_set):,} prompts"]
    lines += _section("batch", _batch(recipe, len(train_set), eval_set))
    name = recipe.model.model_name_or_path
    if not catalogue.is_built(name):  # building it would write files
        unknown = f"unknown: {name} is not built yet; the first run builds it"
        lines += _section("memory per rank", [("all parts", unknown)])
        warnings = [unknown]
        chosen = attention.Attention(recipe.model.attn_implementation)
    else:
        description = describe(catalogue.local_model(name), recipe)
        chosen = attention.choose(recipe, description)
        recipe.model.attn_implementation = chosen.name
        check_recipe_prompts(recipe, train_set, eval_set, description.tokenizer)
        if recipe.run.tools or episodes:
            tool_template(description.tokenizer)  # raises an error if the chat template cannot write or read calls
        form = PromptFormat.of(recipe)
        prompt_tokens = form.longest(train_set, description.processing_class)
        skeleton = memory.skeleton(recipe, description)
        images = form.image_inputs(train_set, description.processing_class)
        table, over = _memory(recipe, skeleton, prompt_tokens, images)
        lines += _section("memory per rank", table)
        lines += _section("exact speed-ups", _speedups(recipe, skeleton))
        warnings = hazards.find(recipe, train_set, eval_set, description, prompt_tokens) + over
    if episodes:
        lines += _section("environments", _environments(episodes, train_set))
    lines += _section("rewards", _rewards(recipe, rewards, train_set))
    if recipe.run.tools:
        lines += _section("tools", _tools(recipe))
    lines += _section("engine", _engine(recipe, chosen))
    lines += _section("hazards", [(f"{i}.", text) for i, text in enumerate(warnings, 1)] or [("-", "none found")])
    lines += ["", f"Nothing was loaded, trained or written. The run would write to {output}."]
    return "\n".join(lines)


def _section(title: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(label) for label, _ in rows)
    lines = ["", title]
    for label, text in rows:
        first = f"  {label:<{width}} "
        lines += textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=" " * len(first)) or [first]
    return lines


def _batch(recipe: Recipe, rows: int, eval_set: datasets.Dataset | None) -> list[tuple[str, str]]:
    args, plan = recipe.training, StepPlan.of(recipe, rows)
    votes = (recipe.run.reward_kwargs.get("majority_vote") or {}).get("votes")
    extra = (
        f", and {votes - args.num_generations} more votes per prompt" if votes and votes > args.num_generations else ""
    )
    length = args.max_completion_length
    table = [
        (
            "one generation",
            f"{plan.prompts:,} prompts × {args.num_generations} completions = {plan.completions:,}{extra}",
        ),
        (
            "over the ranks",
            f"{args.world_size} rank(s) × {args.per_device_train_batch_size} per micro-batch × "
            f"{args.steps_per_generation} micro-batches ({args.device.type}, {memory.Sharding.of(args).name})",
        ),
        (
            "optimiser steps",
            f"{plan.updates:g} on each generation ({args.steps_per_generation} micro-batches × {args.num_iterations} "
            f"iteration(s) / {args.gradient_accumulation_steps} accumulated), {plan.per_update:,} completions each",
        ),
        *([("sampled ahead", _ahead(args))] if args.generate_ahead else []),
        *([("difficulty", _difficulty(Band.read(args.difficulty)))] if args.difficulty else []),
        (
            "tokens, at most",
            f"{plan.per_update * length:,} completion tokens per step, {plan.completions * length:,} per generation",
        ),
        (
            "whole run",
            f"{plan.steps:,} optimiser steps = {plan.steps / plan.updates:,.4g} generations = {plan.epochs:.3g} epochs",
        ),
    ]
    if eval_set is not None:
        steps = f"{args.eval_steps:.0%} of the" if args.eval_steps and args.eval_steps < 1 else f"{args.eval_steps:g}"
        every = f"every {steps} steps" if str(args.eval_strategy.value) == "steps" else "every epoch"
        group = args.num_generations_eval or args.num_generations
        start = "before the first step and " if args.eval_on_start else ""
        table.append(("evaluation", f"{len(eval_set):,} prompts × {group} completions, {start}{every}"))
    return table


def _ahead(args: BaseConfig) -> str:
    """How old the completions are when they are used."""
    first = args.generate_ahead * args.updates_per_generation
    last = first + args.updates_per_generation - 1
    return (
        f"{args.generate_ahead} generation(s): completions are {first:g} to {last:g} optimiser steps old when they are "
        "used; the first generations are younger"
    )


def _difficulty(band: Band) -> str:
    """Which prompts a generation takes."""
    return (
        f"after the first pass over the training set, prompts with a solve rate of {band.low:g} to {band.high:g} are "
        f"preferred, and {band.revisit:.0%} of each generation is drawn from the others"
    )


def _memory(
    recipe: Recipe, skeleton: memory.Skeleton, prompt_tokens: int, images: Mapping[str, Any] | None
) -> tuple[list[tuple[str, str]], list[str]]:
    """The table of a rank's memory, and the hazards that it shows.

    Without the GPU that the recipe needs, the table is for the smallest usual GPU on which everything fits.
    """
    estimate = memory.estimate(recipe, skeleton, prompt_tokens, images)
    here = device_here(recipe)
    device = estimate.device(here)
    parts = estimate.parts(device.memory)
    trained = "all trained" if skeleton.trained == skeleton.parameters else f"{skeleton.trained:,} trained"
    table = [("parameters", f"{skeleton.parameters:,}, {trained}; longest prompt {prompt_tokens:,} tokens")]
    if recipe.run.image_column is not None:
        whole, learns = skeleton.vision
        state = f"{learns:,} trained" if learns else "frozen"
        table.append(("vision tower", f"{whole:,} of the parameters, {state}"))
    for part in parts:
        where = ", in host memory" if part.offloaded else ""
        table.append((part.name, f"{_size(part.size, exact=part.exact)} {part.note}{where}".rstrip()))
    unknown = [part.name for part in parts if part.size is None]
    without = f"; {', '.join(unknown)} not counted" if unknown else ""
    table.append(("peak", f"{estimate.verdict(here)}{without}"))
    if unknown:
        return table, []
    room = estimate.room(device.memory)
    plain, checkpointed = (estimate.training_pass.largest(room, checkpointing=on) for on in (False, True))
    table.append(("pass size", f"on {device.name}, {_pass_sizes(estimate.training_pass, plain, checkpointed)}"))
    return table, hazards.of_memory(estimate, device, plain, checkpointed)


def _size(size: float | None, *, exact: bool) -> str:
    return "unknown:" if size is None else f"{memory.gibibytes(size):>11} {'exact' if exact else 'about'}"


def _pass_sizes(training_pass: TrainingPass, plain: int, checkpointed: int) -> str:
    """The largest pass without and with activation checkpointing, in tokens, and what checkpointing costs."""
    if plain == training_pass.most_tokens:
        return f"all {plain:,} tokens of an optimiser step fit in one pass without activation checkpointing"
    unit = "tokens" if training_pass.is_bounded else "rows"
    without, with_it = (
        f"passes of up to {training_pass.as_value(tokens):,} {unit} fit" if tokens else "not even one row fits"
        for tokens in (plain, checkpointed)
    )
    costs = ", but each pass costs about a third more compute" if checkpointed else ""
    return f"without activation checkpointing {without} ({training_pass.field}); with it {with_it}{costs}"


def _speedups(recipe: Recipe, skeleton: memory.Skeleton) -> list[tuple[str, str]]:
    args = recipe.training
    speedups = decide(
        args,
        skeleton.module,
        bounded_loss=recipe.run.algorithm == "gbpo",
        whole_model=memory.Sharding.of(args).name in ("one process", "DDP"),
        has_images=recipe.run.image_column is not None,
    )
    return [(name, speedups.state(name)) for name in SPEEDUPS]


def _rewards(
    recipe: Recipe, rewards: Sequence[Callable[..., Any]], train_set: datasets.Dataset
) -> list[tuple[str, str]]:
    weights = recipe.training.reward_weights or [1.0] * len(rewards)
    table = []
    for reward, weight in zip(rewards, weights, strict=True):
        text = f"weight {weight:g}; "
        if hasattr(reward, "check_server"):
            text += _server_of(reward, train_set)
        elif hasattr(reward, "check_references"):
            text += f"the reference answers of {min(len(train_set), 256)} rows grade themselves as correct"
        else:
            columns = columns_read(reward)
            text += f"reads {', '.join(columns)} without a check" if columns else "uses no reference answers"
        if hasattr(reward, "box"):
            ready = reward.box.ready()
            stopped = sorted({s.layer for s in ready.canary_results if not s.escaped})
            text += f"; sandbox {ready.backend}, tested layers: {', '.join(stopped) or 'none'}"
            if ready.missing:
                text += f"; MISSING, but allowed: {', '.join(ready.missing)}"
        table.append((get_callable_name(reward), text))
    return table


def _server_of(reward: Callable[..., Any], train_set: datasets.Dataset) -> str:
    """What the server of a reward answers now. A run would stop if it gave no score."""
    try:
        return str(rewards_module("check").check_server(reward, train_set))
    except ValueError as error:
        return f"NO SCORE NOW, so a run would stop: {error}"


def _environments(episodes: Episodes, train_set: datasets.Dataset) -> list[tuple[str, str]]:
    table = []
    for name, kind in episodes.items():
        episode = kind()
        rows = first_rows(name, train_set)
        tools = ", ".join(tool_methods(episode))
        text = f"tools {tools}; " if tools else "no tools; "
        text += f"the first row adds {episode.reset(**rows[0])!r} to the prompt" if rows else "no row uses it"
        about = getattr(episode, "about", "") if rows else ""
        text = f"{about}; {text}" if about else text
        close(episode)
        table.append((kind.__name__ if name is None else name, text))
    return table


def _tools(recipe: Recipe) -> list[tuple[str, str]]:
    run, args = recipe.run, recipe.training
    own = {PYTHON: " (variables per completion, in the sandbox)"}
    return [
        ("names", ", ".join(f"{name}{own.get(name, '')}" for name in run.tools or ())),
        (
            "limits",
            f"{args.max_tool_calling_iterations} turns with calls, {args.max_completion_length:,} tokens for all turns "
            f"with the answers of the tools, {run.tool_timeout:g} s per call",
        ),
        ("loss", "over the tokens of the model, without those of the tools"),
    ]


def _engine(recipe: Recipe, chosen: attention.Attention) -> list[tuple[str, str]]:
    args = recipe.training
    if not args.use_vllm:
        generation = f"transformers {_version('transformers')}"
    elif args.vllm_mode == "server":
        generation = f"vLLM server at {server_url(args)} (installed here: vllm {_version('vllm')})"
    else:
        generation = (
            f"vLLM {_version('vllm')} on the trainer's GPUs, tensor parallel {args.vllm_tensor_parallel_size}, "
            f"{args.vllm_gpu_memory_utilization:.0%} of the memory"
        )
    adapters = f"LoRA of rank {recipe.model.lora_r}" if recipe.model.use_peft else "all weights"
    bits = "".join(f", {n} bit" for n in (4, 8) if getattr(recipe.model, f"load_in_{n}bit"))
    precision = "bf16" if args.bf16 else "fp16" if args.fp16 else "none"
    options = args.model_init_kwargs or {}
    packages = ("torch", "trl", "accelerate", "peft", "deepspeed")
    return [
        ("generation", f"{generation}, temperature {args.temperature:g}"),
        ("training", f"{adapters}{bits}, weights in {recipe.model.dtype}, mixed precision {precision}"),
        (
            "attention",
            f"{chosen}, kernels from the Hub {'on' if options.get('use_kernels') else 'off'}, activation checkpointing "
            f"{'on' if args.activation_checkpointing else 'off'}, compile {'on' if args.torch_compile else 'off'}",
        ),
        ("versions", ", ".join(f"{name} {_version(name)}" for name in packages)),
    ]


def _version(name: str) -> str:
    return installed_version(name) or "not installed"
