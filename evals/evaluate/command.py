"""Evaluate checkpoints on held-out questions with a reward of this project.

    gbpo evaluate runs/mine          # the output folder of a run, its model or one of its checkpoints
    gbpo evaluate MODEL [MODEL ...] DATASET --reward math --columns '{"problem": "prompt"}' --samples 16

prints for each model mean@k, unbiased pass@k, majority@k, the score of greedy decoding, the mean length and the
fraction of samples cut off by the token limit. With `--reference MODEL`, it also prints the KL divergence from the
reference model. A model is a folder, an adapter folder, a Hub id or a builtin model. Results are cached: a repeated
evaluation with the same weights, questions, settings and code reads its result from the cache.

For a model that a run has trained, the settings of the run are the defaults: columns, images, prompts, tools,
environment, reward, temperature, top_p and the maximum number of tokens. They apply to all models of the command. The
reward is that of the environment, or else the first reward of the run. Without DATASET, the questions are the
evaluation set of the run: `eval_dataset_name`, else the test split or, for a generated task, problems that the run does
not train on. Options override them, and one line says where each setting comes from. `--recipe FILE` takes the defaults
from a recipe instead.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from gbpo.shared.write_whole import write_whole

from ..shared.results import Evaluation
from .options import find_origin, models_and_data_set, parser, settings_of, sources
from .origin import trained_model

# torch, transformers and datasets are imported only after the arguments have been checked.


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line. On bad input, print one line and exit with status 2."""
    command_line = parser(__doc__)
    options = command_line.parse_args(argv)
    try:
        _evaluate_all(options)
    except (ValueError, ImportError) as error:
        command_line.error(error)


def summary_lines(evaluation: Evaluation) -> list[str]:
    """The numbers of an evaluation, one per line."""
    from ..shared.estimates import pass_at_k  # SciPy is slow to import

    k, counts = evaluation.samples, evaluation.counts
    powers = [2**i for i in range(min(counts).bit_length())]
    rows = {f"mean@{k}": fmean(evaluation.scores)}
    rows |= {f"pass@{n}": pass_at_k(counts, evaluation.correct, n) for n in powers}
    rows |= {} if evaluation.majority is None else {f"majority@{k}": fmean(evaluation.majority)}
    rows |= {"greedy": fmean(evaluation.greedy)}
    lines = [f"questions     {len(evaluation.scores)}", *(f"{name:13} {value:.4f}" for name, value in rows.items())]
    lines += [f"mean length   {evaluation.mean_tokens:.1f} tokens", f"truncated     {evaluation.truncated:.1%}"]
    if evaluation.kl_to_start is not None:
        lines.append(f"KL            {evaluation.kl_to_start:.4f} nats per completion")
    if evaluation.broken:
        lines.append(f"broken        {evaluation.broken} episodes, which are left out of all other numbers")
    return lines


def _evaluate_all(options: argparse.Namespace) -> None:
    models, data_set = models_and_data_set(options.names)
    origin = find_origin(models, options)
    settings, names = settings_of(options, data_set, origin), [trained_model(name) for name in models]
    if options.output is not None and not Path(options.output).absolute().parent.is_dir():
        raise ValueError(
            f"--output {options.output!r} cannot be written, because its folder does not exist. Create the folder, or "
            "give another file."
        )
    from gbpo.run import reward_hazards
    from gbpo.run.data import loading as data
    from gbpo.run.data.long_prompts import drop_long_prompts
    from gbpo.run.models.chat_templates import check_prompts, unread_variables
    from gbpo.run.rewards import load_rewards
    from gbpo.run.tools.template import tool_template

    from .checkpoint import find_checkpoint
    from .evaluation import episodes_of_test, evaluate

    data.quiet()
    run, form = settings.run, settings.prompts
    questions, held_out = data.load(run, evaluation=data.is_generated(run.dataset_name))
    questions = held_out or questions  # for a generated task, questions that training with these arguments does not use
    load_rewards(run, questions, settings.max_tokens)
    episodes_of_test(run, questions)
    hazards: dict[str, None] = {}
    checkpoints = [find_checkpoint(name, run.chat_template_path, run.image_column) for name in names]
    for checkpoint in checkpoints:  # check all models before evaluating the first
        tokenizer = checkpoint.tokenizer
        check_prompts(questions, run.dataset_name, form, tokenizer)
        if run.tools or run.environment:
            tool_template(tokenizer)  # raises an error if the chat template cannot write or read calls
        found = reward_hazards.find(run, form, questions, tokenizer, settings.max_tokens)
        hazards |= dict.fromkeys([*unread_variables(form, tokenizer), *found])
    if options.reference is not None:
        find_checkpoint(options.reference, run.chat_template_path, run.image_column)
    if origin is not None:
        print(f"gbpo evaluate: {sources(settings, options, data_set, origin)}", flush=True)
    for hazard in hazards:
        print(f"gbpo evaluate: warning: {hazard}", file=sys.stderr, flush=True)
    # all models get the questions that are short enough for the first
    processing = checkpoints[0].description.processing_class
    questions = drop_long_prompts(questions, run.max_prompt_tokens, form, processing, "evaluation set")
    written = []
    for name in names:
        evaluation = evaluate(name, questions, settings, options.reference, use_cache=not options.no_cache)
        how = f"temperature {settings.temperature:g}, top_p {settings.top_p:g}, {settings.engine}"
        head = f"{name} ({run.dataset_name}, {how})"
        print("\n".join([head, *map("  {}".format, summary_lines(evaluation))]))
        written.append(
            {
                "model": name,
                "settings": settings.as_dict() | {"reference": options.reference},
                "evaluation": dataclasses.asdict(evaluation),
            }
        )
    if options.output is not None:
        write_whole(Path(options.output), json.dumps(written, default=str) + "\n")
