"""Runs a recipe: trains a model, and writes the model, its metrics and curves to the output folder."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import datasets
from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from trl import get_peft_config, get_quantization_config
from trl.trainer.utils import get_callable_name

from ..shared.commands import as_typed
from ..shared.stopping import TrainingStopped
from ..shared.write_whole import write_whole
from ..trainer.base import BaseTrainer
from ..trainer.gbpo import GBPOTrainer
from ..trainer.guards.collapse import CollapseWatch
from ..trainer.sampling.extra_votes import vote_rounds
from ..trainer.sampling.unbiased import check_sampling
from ..trainer.sampling.vllm_client import check_server
from .data.loading import announce, load, quiet
from .data.long_prompts import drop_long_prompts
from .data.prompts import PromptFormat
from .environments.checks import Episodes, load_episodes
from .environments.episode import rewards_of
from .help_page import asks_for_help, help_page
from .models import attention, catalogue
from .models.adapters import save_merged
from .models.chat_templates import check_recipe_prompts
from .models.description import Description, describe
from .output import folder
from .output.curves import draw_curves
from .output.model_card import CARD, model_card
from .output.progress import MetricsFile, ProgressBar
from .output.trend import Trend
from .preview import dry_run, hazards, memory, plan
from .processes.ending import command_to_continue, started_words, watched
from .processes.group import agreed, leave_together
from .processes.launcher import LaunchError, ShardsCheck, check_group, check_launcher, check_one_gpu, check_strategy
from .processes.output_lock import lock_output
from .recipe.checks import check_difficulty, check_reward_names, check_reward_weights, check_writable, form_rewards
from .recipe.evaluation import set_evaluation
from .recipe.parsing import Recipe, parse
from .report.at_end import reported
from .report.page import REPORT
from .reward_trial import try_own_rewards
from .rewards import load_rewards
from .rewards_package import rewards_module
from .rollouts import files
from .rollouts.traces import log_traces
from .tools.limits import take_timeouts
from .tools.named_tools import Tools, load_tools
from .tools.possible import check_possible
from .tools.template import tool_template


@dataclass(frozen=True)
class Inputs:
    """A checked recipe with its data, rewards and tools, and the folder to write to."""

    recipe: Recipe
    train_set: datasets.Dataset
    eval_set: datasets.Dataset | None
    rewards: list[Callable[..., Any]]
    tools: Tools
    episodes: Episodes
    output: Path


def main(argv: Sequence[str] | None = None) -> None:
    """Run the recipe named on the command line.

    Args:
        argv: `RECIPE [--field value …]`; by default the arguments of this process.

    Raises:
        SystemExit: With status 2, after one printed line, for bad input. With status 3 if a check such as
            `CollapseWatch` ends the run. With status 130 after an interrupt.
    """
    quiet()
    argv = sys.argv[1:] if argv is None else argv
    if asks_for_help(argv):
        print(help_page(argv))
        return
    try:
        check_launcher()
        recipe = parse(argv)
        check_group()
        inputs = check_inputs(recipe)
        name = recipe.model.model_name_or_path
        if recipe.run.dry_run:
            if catalogue.is_built(name):
                _check_prompts_and_rewards(inputs, describe(catalogue.local_model(name), recipe))
            agreed(lambda: _print_dry_run(inputs))
            leave_together()
            return
        check_one_gpu(recipe.training)
        agreed(lambda: _check_server(recipe))
        agreed(lambda: _check_servers_of_rewards(inputs))
        model = catalogue.local_model(name)
        description = describe(model, recipe)
        _check_prompts_and_rewards(inputs, description)
        if recipe.run.tools or inputs.episodes:
            tool_template(description.tokenizer)  # raises an error if the chat template cannot write or read calls
        recipe.model.attn_implementation = agreed(lambda: _attention(recipe, description))
        memory.skeleton(recipe, description)  # raises an error if adapters, attention or model_init_kwargs do not fit
        agreed(lambda: lock_output(inputs.output))
    except PermissionError as error:
        _refuse(ValueError(f"{error.filename} cannot be read or written: permission denied. Give another path."))
    except (ValueError, ImportError) as error:
        _refuse(error)
    try:
        with watched(inputs.output) as step_report:
            train(inputs, model, description, step_report)
            leave_together()
    except LaunchError as error:
        _refuse(error)
    except TrainingStopped:  # the watcher has printed the reason
        raise SystemExit(3) from None
    except KeyboardInterrupt:  # the watcher has printed how to go on
        raise SystemExit(130) from None


def check_inputs(recipe: Recipe) -> Inputs:
    """Load data and rewards, and check everything that needs no model.

    Raises:
        ValueError: The data, the rewards, the model's name or the output folder cannot be used.
    """
    check_sampling(recipe.training)
    PromptFormat.of(recipe)  # raises an error if chat_template_kwargs cannot be used
    train_set, eval_set = load(recipe.run, evaluation=recipe.training.eval_strategy != "no")
    catalogue.check_model_name(recipe.model.model_name_or_path)
    if recipe.run.max_prompt_tokens is not None:
        train_set, eval_set = _without_long_prompts(recipe, train_set, eval_set)
    check_enough_prompts(recipe, len(train_set))
    rewards = load_rewards(recipe.run, train_set, recipe.training.max_completion_length, eval_set)
    episodes = load_episodes(recipe.run, train_set, eval_set, has_rewards=bool(rewards))
    rewards += rewards_of(episodes)
    reward_names = [get_callable_name(reward) for reward in rewards]
    check_reward_names(reward_names)
    check_reward_weights(recipe.training.reward_weights, reward_names)
    check_difficulty(recipe.training.difficulty, recipe.run.reward_funcs or (), len(rewards))
    set_evaluation(recipe, rewards)
    rounds = vote_rounds(rewards, recipe.training.num_generations)  # raises an error if `votes` does not fit
    if recipe.run.tools or episodes:
        check_possible(
            recipe.training,
            "environment" if episodes else "tools",
            vote_rounds=rounds,
            sharded=memory.Sharding.of(recipe.training).weights > 1,
        )
    tools = load_tools(recipe.run)
    agreed(lambda: _check_references(rewards, train_set, eval_set))
    output = agreed(lambda: folder.choose(recipe))
    agreed(lambda: check_writable(output))
    return Inputs(recipe, train_set, eval_set, rewards, tools, episodes, output)


def _without_long_prompts(
    recipe: Recipe, train_set: datasets.Dataset, eval_set: datasets.Dataset | None
) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """Both sets without the prompts that are longer than `max_prompt_tokens`."""
    name = recipe.model.model_name_or_path
    if recipe.run.dry_run and not catalogue.is_built(name):  # building the model would write files
        announce(f"max_prompt_tokens={recipe.run.max_prompt_tokens} drops nothing yet, because {name} is not built.")
        return train_set, eval_set
    description, form = describe(catalogue.local_model(name), recipe), PromptFormat.of(recipe)
    check_recipe_prompts(recipe, train_set, eval_set, description.tokenizer)
    limit, processing = recipe.run.max_prompt_tokens, description.processing_class
    train_set = drop_long_prompts(train_set, limit, form, processing, "training set")
    return train_set, eval_set and drop_long_prompts(eval_set, limit, form, processing, "evaluation set")


def train(inputs: Inputs, model: str, description: Description, step_report: TrainerCallback) -> None:
    """Train, and write config, metrics, completions, curves and the model to the output folder.

    Args:
        inputs: What `check_inputs` returned.
        model: Folder or Hub id of the model.
        description: Configuration and tokenizer of the model.
        step_report: Callback that tells the watcher the current step.
    """
    recipe, output = inputs.recipe, inputs.output
    trainer = _make_trainer(inputs, model, description)
    check_strategy(trainer)
    _add_callbacks(trainer, inputs, step_report)
    resume = recipe.training.resume_from_checkpoint
    checkpoint = resume and folder.last_checkpoint(output, resume)
    if checkpoint:
        trainer.args.eval_on_start = False  # the run was evaluated before its first step
    is_main = trainer.accelerator.is_main_process
    trainer.model_card = card = _model_card(trainer, inputs, description)
    if recipe.training.log_completions:
        trainer.record_rollouts(partial(_write_rollouts, output, traces="trackio" in recipe.training.report_to))
    if is_main:
        step = folder.step_of(checkpoint) if checkpoint else 0
        if checkpoint and (changed := folder.changes(checkpoint, recipe)):
            print(f"Changed after step {step}: {'; '.join(changed)}.", flush=True)
        folder.write_config(output, recipe, step, started_words(), command_to_continue(output))
        files.rewind(output, step)
        if aside := folder.set_aside_later_checkpoints(output, step):
            print(f"The checkpoints of later steps than {step} are in {aside} now.", flush=True)
        _print_plan(trainer, inputs, description)
    start = time.perf_counter()
    with reported(output, lambda: trainer.state.global_step) if is_main else nullcontext():
        trainer.train(resume_from_checkpoint=checkpoint)
        seconds = time.perf_counter() - start
        trainer.save_model(str(output / folder.MODEL))
        if is_main:
            _save_beside_model(trainer, recipe, model, output, card)
            draw_curves(output, f"{recipe.path.stem}, {recipe.run.algorithm}")
    if is_main:
        print(_summary(recipe, output, seconds), flush=True)


def _attention(recipe: Recipe, description: Description) -> str | None:
    """Name of the attention implementation. If the recipe leaves the choice to the run, print it with the reason."""
    chosen = attention.choose(recipe, description)
    if chosen.reason:
        print(f"Attention: {chosen}.", flush=True)
    return chosen.name


def _make_trainer(inputs: Inputs, model: str, description: Description) -> BaseTrainer:
    recipe, tokenizer = inputs.recipe, description.tokenizer
    args, form = recipe.training, PromptFormat.of(recipe)
    args.output_dir = str(inputs.output)
    if "num_completions_to_print" not in recipe.given:
        args.num_completions_to_print = 0  # TRL would print all of them at every log
    args.model_init_kwargs = {
        "revision": recipe.model.model_revision,
        "attn_implementation": recipe.model.attn_implementation,
        "dtype": recipe.model.dtype,
        **(args.model_init_kwargs or {}),
    }
    trainer_class = GBPOTrainer if recipe.run.algorithm == "gbpo" else BaseTrainer
    with hazards.without_config_warnings():
        trainer = trainer_class(
            model,
            inputs.rewards,
            args,
            train_dataset=form.format(inputs.train_set, tokenizer),
            eval_dataset=inputs.eval_set and form.format(inputs.eval_set, tokenizer),
            processing_class=description.processing_class,
            quantization_config=get_quantization_config(recipe.model),
            peft_config=get_peft_config(recipe.model),
            tools=list(inputs.tools.functions),
            environment_factory=inputs.tools.session or inputs.episodes.get(None, inputs.episodes) or None,
        )
    if recipe.run.tools or inputs.episodes:
        trainer.take_tool_timeouts = take_timeouts
    if trainer.curriculum is not None:
        trainer.curriculum.skipped = form_rewards(recipe.run.reward_funcs or ())
    return trainer


def _add_callbacks(trainer: BaseTrainer, inputs: Inputs, step_report: TrainerCallback) -> None:
    trainer.remove_callback(PrinterCallback)
    if trainer.pop_callback(ProgressCallback) is not None and sys.stderr.isatty():  # it would cut the lines of a file
        trainer.add_callback(ProgressBar)
    for callback in (
        ShardsCheck(trainer),
        MetricsFile(inputs.output),
        CollapseWatch(stop=inputs.recipe.run.stop_on_collapse),
        hazards.MostlyTruncated(),
        step_report,
    ):
        trainer.add_callback(callback)


def _write_rollouts(output: Path, record: dict[str, Any], *, traces: bool) -> None:
    """Write the record of a generation to the output folder and, on request, to trackio."""
    files.write(output, record)
    if traces:
        log_traces(record)


def _print_plan(trainer: BaseTrainer, inputs: Inputs, description: Description) -> None:
    recipe, train_set = inputs.recipe, inputs.train_set
    print(plan.one_line(recipe, len(train_set)), flush=True)
    print(trainer.speedups.line(), flush=True)
    prompt_tokens = PromptFormat.of(recipe).longest(train_set, description.processing_class)
    for hazard in hazards.find(recipe, train_set, inputs.eval_set, description, prompt_tokens):
        print(f"gbpo: warning: {hazard}", file=sys.stderr, flush=True)


def _model_card(trainer: BaseTrainer, inputs: Inputs, description: Description) -> Callable[..., str]:
    """The function that gives the text of the model card. It takes `merged`, as `model_card` does."""
    recipe, question = inputs.recipe, "Your question"
    as_text = isinstance(inputs.train_set[0]["prompt"], str)
    prompt = PromptFormat.of(recipe).formatted(
        question if as_text else [{"role": "user", "content": question}], description.tokenizer
    )
    return partial(
        model_card, recipe, inputs.output, command=as_typed(started_words()), prompt=prompt, paper=trainer._paper
    )


def _save_beside_model(
    trainer: BaseTrainer, recipe: Recipe, model: str, output: Path, card: Callable[..., str]
) -> None:
    """Save the model card and, if the recipe asks for it, the merged model with a card of its own."""
    (output / CARD).unlink(missing_ok=True)  # TRL writes one with every checkpoint
    write_whole(output / folder.MODEL / CARD, card())
    if recipe.run.merge_adapter:
        save_merged(recipe, model, output / folder.MODEL, output / folder.MERGED)
        trainer.processing_class.save_pretrained(output / folder.MERGED)
        write_whole(output / folder.MERGED / CARD, card(merged=True))


def _print_dry_run(inputs: Inputs) -> None:
    data = (inputs.train_set, inputs.eval_set)
    page = dry_run.report(inputs.recipe, *data, inputs.rewards, inputs.output, inputs.episodes)
    print(page, flush=True)


def _refuse(error: Exception) -> NoReturn:
    """Print the error in one line, once for all processes, and exit with status 2."""
    if os.environ.get("RANK", "0") == "0":
        print(f"gbpo: error: {error}", file=sys.stderr, flush=True)
    raise SystemExit(2)


def _check_prompts_and_rewards(inputs: Inputs, description: Description) -> None:
    """Raise `ValueError` if the model's chat template cannot write the prompts, or one of the user's rewards fails."""
    recipe, tokenizer = inputs.recipe, description.tokenizer
    check_recipe_prompts(recipe, inputs.train_set, inputs.eval_set, tokenizer)
    try_own_rewards(recipe, inputs.rewards, inputs.train_set, tokenizer)


def _check_server(recipe: Recipe) -> None:
    model = recipe.model
    quantised = model.load_in_4bit or model.load_in_8bit
    check_server(recipe.training, model.lora_r if model.use_peft else None, quantised=quantised)


def _check_references(
    rewards: list[Callable[..., Any]], train_set: datasets.Dataset, eval_set: datasets.Dataset | None
) -> None:
    """Raise `ValueError` if too many reference answers in a sample of the data do not grade themselves as correct."""
    check_sample = rewards_module("check").check_sample
    for reward in rewards:
        check_sample(get_callable_name(reward), reward, train_set)
        if eval_set is not None:
            try:
                check_sample(get_callable_name(reward), reward, eval_set)
            except ValueError as error:
                raise ValueError(f"In the evaluation set: {error}") from None


def _check_servers_of_rewards(inputs: Inputs) -> None:
    """Print what the servers of the rewards answer. Raise `ValueError` if one of them gives no score."""
    check_server = rewards_module("check").check_server
    for reward in inputs.rewards:
        if answer := check_server(reward, inputs.train_set):
            print(f"Reward {get_callable_name(reward)}: {answer}.", flush=True)


def check_enough_prompts(recipe: Recipe, rows: int) -> None:
    """Raise `ValueError` if a data set of `rows` prompts is too small for one generation."""
    args = recipe.training
    prompts = args.generation_batch_size // args.num_generations
    if rows < prompts:
        raise ValueError(
            f"{recipe.run.dataset_name!r} has {rows} prompts, but every generation takes {prompts} different ones "
            f"(generation_batch_size={args.generation_batch_size} / num_generations={args.num_generations}): no step "
            f"would be taken. Give more prompts, or write generation_batch_size={rows * args.num_generations} or less."
        )


def _summary(recipe: Recipe, output: Path, seconds: float) -> str:
    """The paths of all results, and the mean reward of the first and of the last logging steps."""
    rows = folder.read_metrics(output)
    reward = Trend.of(rows, "reward")
    name = recipe.training.run_name or recipe.path.stem
    change = f"reward {reward.first.mean:.2f} -> {reward.last.mean:.2f}" if reward else "no reward logged"
    if recipe.training.logging_strategy == "steps" and not any("reward" in row for row in rows):
        change += f" before step logging_steps={recipe.training.logging_steps:g} (write a smaller logging_steps)"
    lines = [f"reward:  {reward.text('.3f')}"] if reward else []
    lines += [
        f"report:  {output / REPORT}",
        f"curves:  {output / folder.CURVES}",
        f"metrics: {output / folder.METRICS}",
    ]
    if recipe.training.log_completions:
        lines.append(f"samples: {output / files.FOLDER} (gbpo rollouts {output})")
    lines.append(f"model:   {output / folder.MODEL}")
    if recipe.run.merge_adapter:
        lines.append(f"merged:  {output / folder.MERGED}")
    return "\n".join([*lines, f"{name}: {change} in {seconds:.0f} s, {output}"])
