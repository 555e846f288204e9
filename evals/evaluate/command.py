"""Evaluate checkpoints on held-out questions with a reward of this project.

    python -m evals.evaluate MODEL [MODEL ...] DATASET --reward math --columns '{"problem": "prompt"}' --samples 16

prints for each model mean@k, unbiased pass@k, majority@k, the score of greedy decoding, the mean length and the
fraction of samples cut off by the token limit. With `--reference MODEL`, it also prints the KL divergence from the
reference model. A model is a folder, an adapter folder, a Hub id or a builtin model. Results are cached: a repeated
evaluation with the same weights, questions, settings and code reads its result from the cache.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from gbpo.run.recipe.arguments import RunArguments, mapping
from gbpo.shared.write_whole import write_whole

from ..shared.command_line import OneLineErrorParser
from ..shared.results import Evaluation
from .settings import DATA_FIELDS, ENGINES, SAMPLING, TASK_FIELDS, Settings

# torch, transformers and datasets are imported only after the arguments have been checked.


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line. On bad input, print one line and exit with status 2."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        _evaluate_all(options)
    except (ValueError, ImportError) as error:
        parser.error(error)


def summary_lines(evaluation: Evaluation) -> list[str]:
    """The numbers of an evaluation, one per line."""
    from ..shared.estimates import pass_at_k  # SciPy is slow to import

    k = evaluation.samples
    rows = {f"mean@{k}": fmean(evaluation.scores)}
    rows |= {f"pass@{n}": pass_at_k(k, evaluation.correct, n) for n in [2**i for i in range(k.bit_length())]}
    rows |= {f"majority@{k}": fmean(evaluation.majority), "greedy": fmean(evaluation.greedy)}
    lines = [f"questions     {len(evaluation.scores)}", *(f"{name:13} {value:.4f}" for name, value in rows.items())]
    lines += [f"mean length   {evaluation.mean_tokens:.1f} tokens", f"truncated     {evaluation.truncated:.1%}"]
    if evaluation.kl_to_start is not None:
        lines.append(f"KL            {evaluation.kl_to_start:.4f} nats per completion")
    return lines


def _evaluate_all(options: argparse.Namespace) -> None:
    settings, names = _settings(options), options.names[:-1]
    if options.output is not None and not Path(options.output).absolute().parent.is_dir():
        raise ValueError(
            f"--output {options.output!r} cannot be written, because its folder does not exist. Create the folder, or "
            "give another file."
        )
    from gbpo.run.data import loading as data
    from gbpo.run.rewards import load_rewards

    from .checkpoint import find_checkpoint
    from .evaluation import evaluate

    data.quiet()
    questions, held_out = data.load(settings.run, evaluation=data.is_generated(settings.run.dataset_name))
    questions = held_out or questions  # for a generated task, questions that training with these arguments does not use
    load_rewards(settings.run, questions)
    for name in [*names, *([options.reference] if options.reference is not None else [])]:
        find_checkpoint(name, settings.run.chat_template_path)  # check all models before evaluating the first
    written = []
    for name in names:
        evaluation = evaluate(name, questions, settings, options.reference, use_cache=not options.no_cache)
        how = f"temperature {settings.temperature:g}, top_p {settings.top_p:g}, {settings.engine}"
        head = f"{name} ({settings.run.dataset_name}, {how})"
        print("\n".join([head, *map("  {}".format, summary_lines(evaluation))]))
        written.append(
            {
                "model": name,
                "settings": settings.as_dict((*DATA_FIELDS, *TASK_FIELDS)) | {"reference": options.reference},
                "evaluation": dataclasses.asdict(evaluation),
            }
        )
    if options.output is not None:
        write_whole(Path(options.output), json.dumps(written, default=str) + "\n")


def _settings(options: argparse.Namespace) -> Settings:
    if len(options.names) < 2:
        raise ValueError(
            f"Only {options.names[0]!r} is given, so there is nothing to evaluate. Write at least one model, and the "
            "data set last."
        )
    reward_kwargs = mapping("reward_kwargs", options.reward_kwargs)
    if reward_kwargs and options.reward is None:
        raise ValueError(f"reward_kwargs={reward_kwargs} has no effect without a reward. Write --reward.")
    run = RunArguments(
        dataset_name=options.names[-1],
        dataset_config=options.dataset_config,
        dataset_train_split=options.split,
        dataset_kwargs=options.dataset_kwargs,
        dataset_columns=options.columns,
        system_prompt=options.system_prompt,
        prompt_template=options.prompt_template,
        chat_template_path=options.chat_template_path,
        reward_funcs=[options.reward] if options.reward is not None else None,
        reward_kwargs={options.reward: reward_kwargs} if options.reward is not None else {},
    )
    return Settings(run, **{name: getattr(options, name) for name in SAMPLING})


def _parser() -> OneLineErrorParser:
    parser = OneLineErrorParser(
        prog="python -m evals.evaluate",
        usage="%(prog)s MODEL [MODEL ...] DATASET --reward NAME [options]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add, defaults = parser.add_argument, {field.name: field.default for field in dataclasses.fields(Settings)}
    add("names", nargs="+", metavar="MODEL", help="models, then the data set: a file, a Hub id or a generated task")
    add("--reward", help="name or dotted path of the reward (reasoning_gym tasks have their own)")
    add("--reward_kwargs", default="{}", help="options of the reward, for example '{\"workers\": 4}'")
    add("--columns", "--dataset_columns", default="{}", help='columns to rename, as \'{"answer": "solution"}\'')
    add("--dataset_config", help="configuration of a Hub data set")
    add("--dataset_kwargs", default="{}", help="arguments of a generated task, as in training")
    add("--split", default="test", help="split of a Hub data set")
    add("--samples", type=int, default=defaults["samples"], help="completions per question")
    add("--temperature", type=float, default=defaults["temperature"], help="sampling temperature")
    add("--top_p", type=float, default=defaults["top_p"], help="nucleus sampling")
    add("--max_tokens", type=int, default=defaults["max_tokens"], help="maximum number of tokens per completion")
    add("--seed", type=int, default=defaults["seed"], help="seed of the sampling")
    add("--batch_size", type=int, default=defaults["batch_size"], help="completions per batch")
    add("--system_prompt", help="system message before every prompt")
    add("--prompt_template", help="text around the prompt, with {prompt} in its place")
    add("--chat_template_path", help="file with a Jinja chat template that replaces the tokenizer's")
    add("--reference", metavar="MODEL", help="model to measure the KL divergence from")
    add("--engine", choices=ENGINES, default=defaults["engine"], help="program that generates the completions")
    add("--output", metavar="FILE.json", help="file to write the results to")
    add("--no_cache", action="store_true", help="evaluate again even if the result is cached")
    return parser
