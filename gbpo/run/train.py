"""One run: recipe in, model, metrics and curves out."""

import importlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from trl import get_peft_config, get_quantization_config
from trl.trainer.utils import get_callable_name

from ..shared.stopping import TrainingStopped
from ..trainer.base import BaseTrainer
from ..trainer.gbpo import GBPOTrainer
from ..trainer.guards.collapse import CollapseWatch
from ..trainer.sampling.extra_votes import vote_rounds
from ..trainer.sampling.unbiased import check_sampling
from ..trainer.sampling.vllm_client import check_server
from .data import loading as data
from .models import adapters
from .models import catalogue as models
from .output import folder
from .output.progress import MetricsFile, ProgressBar
from .preview import dry_run, hazards, memory, plan
from .processes import ending
from .processes import group as processes
from .processes.group import agreed, leave_together
from .recipe.checks import check_reward_weights, check_writable
from .recipe.parsing import Recipe, parse
from .rewards import load_rewards, rewards_package


def main(argv: Sequence[str] | None = None) -> None:
    """Run the recipe named on the command line; on bad input print one line and exit with status 2."""
    data.quiet()
    argv = sys.argv[1:] if argv is None else argv
    try:
        processes.check_launcher()
        recipe = parse(argv)
        processes.check_group()
        check_sampling(recipe.training)
        train_set, eval_set = data.load(recipe.run, evaluation=recipe.training.eval_strategy != "no")
        check_enough_prompts(recipe, len(train_set))
        rewards = load_rewards(recipe.run, train_set)
        check_reward_weights(recipe.training.reward_weights, [get_callable_name(reward) for reward in rewards])
        vote_rounds(rewards, recipe.training.num_generations)
        agreed(lambda: _check_golds(rewards, train_set))
        models.check_model_name(recipe.model.model_name_or_path)
        output = agreed(lambda: folder.choose(recipe))
        agreed(lambda: check_writable(output))
        if recipe.run.dry_run:
            agreed(lambda: print(dry_run.report(recipe, train_set, eval_set, rewards, output), flush=True))
            leave_together()
            return
        agreed(lambda: check_server(recipe.training))
        model = models.local_model(recipe.model.model_name_or_path)
        description = models.describe(model, recipe)
        memory.skeleton(recipe, description)
        agreed(lambda: processes.hold(output))
    except (ValueError, ImportError) as error:
        processes.refuse(error)
    try:
        with ending.watched(output) as step_report:
            train(recipe, train_set, eval_set, rewards, model, output, description, step_report)
            leave_together()
    except processes.LaunchError as error:
        processes.refuse(error)
    except TrainingStopped:  # its reason has been printed
        raise SystemExit(3) from None


def train(
    recipe: Recipe,
    train_set: datasets.Dataset,
    eval_set: datasets.Dataset | None,
    rewards: list[Callable[..., Any]],
    model: str,
    output: Path,
    description: models.Description,
    step_report: TrainerCallback,
) -> None:
    """Train and leave config, metrics, completions, curves and the model under `output`."""
    args = recipe.training
    args.output_dir = str(output)
    tokenizer = description.tokenizer
    args.model_init_kwargs = {
        "revision": recipe.model.model_revision,
        "attn_implementation": recipe.model.attn_implementation,
        "dtype": recipe.model.dtype,
        **(args.model_init_kwargs or {}),
    }
    with hazards.said_by_the_run():
        trainer = (GBPOTrainer if recipe.run.algorithm == "gbpo" else BaseTrainer)(
            model,
            rewards,
            args,
            train_dataset=data.format_prompts(train_set, recipe.run, tokenizer),
            eval_dataset=eval_set and data.format_prompts(eval_set, recipe.run, tokenizer),
            processing_class=tokenizer,
            quantization_config=get_quantization_config(recipe.model),
            peft_config=get_peft_config(recipe.model),
        )
    processes.check_strategy(trainer)
    trainer.add_callback(processes.ShardsCheck(trainer))
    show = trainer.accelerator.is_main_process
    trainer.remove_callback(PrinterCallback)
    if trainer.pop_callback(ProgressCallback) is not None:
        trainer.add_callback(ProgressBar)
    watches = (CollapseWatch(stop=recipe.run.stop_on_collapse), hazards.MostlyTruncated())
    for callback in (MetricsFile(output), *watches, step_report):
        trainer.add_callback(callback)
    resume = args.resume_from_checkpoint
    checkpoint = resume and folder.last_checkpoint(output, resume)
    if show:
        folder.write_config(output, recipe, step=int(checkpoint.rpartition("-")[2]) if checkpoint else 0)
        print(plan.one_line(recipe, len(train_set)), flush=True)
        prompt_tokens = data.longest_prompt(train_set, recipe.run, tokenizer)
        for hazard in hazards.find(recipe, train_set, eval_set, description, prompt_tokens):
            print(f"gbpo: warning: {hazard}", file=sys.stderr, flush=True)

    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=checkpoint)
    seconds = time.perf_counter() - start
    trainer.save_model(str(output / folder.MODEL))
    if show:
        trainer.create_model_card(model_name=output.name, dataset_name=recipe.run.dataset_name)
        (output / "README.md").replace(output / folder.MODEL / "README.md")
        if recipe.run.merge_adapter:
            adapters.save_merged(recipe, model, output / folder.MODEL, output / folder.MERGED)
            tokenizer.save_pretrained(output / folder.MERGED)
        folder.draw_curves(output, f"{recipe.path.stem}, {recipe.run.algorithm}")
        print(_summary(recipe, output, seconds), flush=True)


def _check_golds(rewards: list[Callable[..., Any]], train_set: datasets.Dataset) -> None:
    """Raise `ValueError` unless the golds of a sample of the data set grade themselves as right."""
    check_sample = importlib.import_module(f"{rewards_package().__name__}.check").check_sample
    for reward in rewards:
        check_sample(get_callable_name(reward), reward, train_set)


def check_enough_prompts(recipe: Recipe, rows: int) -> None:
    args = recipe.training
    prompts = args.generation_batch_size // args.num_generations
    if rows < prompts:
        raise ValueError(
            f"{recipe.run.dataset_name!r} has {rows} prompts, but every generation takes {prompts} different ones "
            f"(generation_batch_size={args.generation_batch_size} / num_generations={args.num_generations}): no step "
            f"would be taken. Give more prompts, or write generation_batch_size={rows * args.num_generations} or less."
        )


def _summary(recipe: Recipe, output: Path, seconds: float) -> str:
    """Where everything lies, and the reward of the first and the last logging step."""
    rewards = [row["reward"] for row in folder.read_metrics(output) if row.get("reward") is not None]
    name = recipe.training.run_name or recipe.path.stem
    change = f"reward {rewards[0]:.2f} -> {rewards[-1]:.2f}" if rewards else "no reward logged"
    lines = [f"curves:  {output / folder.CURVES}", f"metrics: {output / folder.METRICS}"]
    if recipe.training.log_completions:
        lines.append(f"samples: {output / 'completions'}")
    lines.append(f"model:   {output / folder.MODEL}")
    if recipe.run.merge_adapter:
        lines.append(f"merged:  {output / folder.MERGED}")
    return "\n".join([*lines, f"{name}: {change} in {seconds:.0f} s, {output}"])
