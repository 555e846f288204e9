"""Evaluate models on held-out questions with a reward of this project.

    gbpo evaluate runs/mine     # the folder of a run, its model or a checkpoint
    gbpo evaluate MODEL DATA --reward math --columns '{"problem": "prompt"}'

prints mean@k with its 95 % interval over the questions, unbiased pass@k, majority@k, the score of greedy decoding, the
mean length and the share of samples that the token limit cuts off. With several models, it also prints the difference
of each later model to the first. Settings that are not given are those of the run that trained the model, and one line
names them. Results are cached. evals/README.md explains more.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from statistics import fmean

from gbpo.shared.command_line import OneLineErrorParser, check_file
from gbpo.shared.write_whole import write_whole

from ..shared.results import Evaluation
from .options import find_origin, models_and_data_set, parser, settings_of, sources
from .origin import trained_model

# torch, transformers and datasets are imported only after the arguments have been checked.


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line. On bad input, print one line and exit with status 2."""
    command_line = make_parser()
    options = command_line.parse_args(argv)
    try:
        _evaluate_all(options)
    except (ValueError, ImportError) as error:
        command_line.error(error)


def make_parser() -> OneLineErrorParser:
    """The parser of the command."""
    return parser(__doc__)


def summary_lines(evaluation: Evaluation) -> list[str]:
    """The numbers of an evaluation, one per line."""
    from ..shared.estimates import mean_interval, pass_at_k, possible_range  # SciPy is slow to import

    k, counts = evaluation.samples, evaluation.counts
    powers = [2**i for i in range(min(counts).bit_length())]
    mean = mean_interval(evaluation.scores).within(*possible_range(evaluation.scores))
    rows = {f"mean@{k}": fmean(evaluation.scores)}
    rows |= {f"pass@{n}": pass_at_k(counts, evaluation.correct, n) for n in powers}
    rows |= {} if evaluation.majority is None else {f"majority@{k}": fmean(evaluation.majority)}
    rows |= {"greedy": fmean(evaluation.greedy)}
    lines = [f"questions     {len(evaluation.scores)}", *(f"{name:13} {value:.4f}" for name, value in rows.items())]
    if mean.ends:
        lines[1] += f"  95 % interval [{mean.low:.4f}, {mean.high:.4f}]"
    lines += [f"mean length   {evaluation.mean_tokens:.1f} tokens", f"truncated     {evaluation.truncated:.1%}"]
    if not math.isclose(rows.get("pass@1", rows[f"mean@{k}"]), rows[f"mean@{k}"]):
        lines.append("pass@k counts a completion as right if its reward is 1.")
    if evaluation.kl_to_start is not None:
        lines.append(f"KL            {evaluation.kl_to_start:.4f} nats per completion")
    if evaluation.broken:
        lines.append(f"broken        {evaluation.broken} episodes, which are left out of all other numbers")
    return lines


def difference_lines(names: Sequence[str], evaluations: Sequence[Evaluation]) -> list[str]:
    """The difference of mean@k of each later model to the first, with its 95 % interval, one per line.

    The differences are paired by question. The intervals are corrected for the number of models by Holm's method.
    """
    from ..shared.estimates import paired_difference, possible_range
    from ..shared.holm import corrected_intervals

    first, *others = evaluations
    differences = corrected_intervals([paired_difference(other.scores, first.scores) for other in others])
    low, high = possible_range(score for evaluation in evaluations for score in evaluation.scores)
    lines = []
    for name, difference in zip(names[1:], differences, strict=True):
        cut = difference.within(low - high, high - low)
        bounds = f" [{cut.low:+z.4f}, {cut.high:+z.4f}]" if cut.ends else ""
        note = "" if cut.excludes_zero else ", not significant"
        lines.append(f"{name}: mean@{first.samples} {cut.estimate:+z.4f}{bounds}{note}")
    return lines


def _evaluate_all(options: argparse.Namespace) -> None:
    models, data_set = models_and_data_set(options.names)
    origin = find_origin(models, options)
    settings, names = settings_of(options, data_set, origin), [trained_model(name) for name in models]
    check_file("--output", options.output)
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
    evaluations = []
    for name in names:
        evaluation = evaluate(name, questions, settings, options.reference, use_cache=not options.no_cache)
        how = f"temperature {settings.temperature:g}, top_p {settings.top_p:g}, {settings.engine}"
        head = f"{name} ({run.dataset_name}, {how})"
        print("\n".join([head, *map("  {}".format, summary_lines(evaluation))]))
        evaluations.append(evaluation)
    if len(names) > 1:
        count = f" (corrected for {len(names) - 1} differences by Holm's method)" if len(names) > 2 else ""
        print(f"Difference to {names[0]}, paired by question, with 95 % intervals{count}:")
        print("\n".join(map("  {}".format, difference_lines(names, evaluations))))
    if options.output is not None:
        written = [
            {
                "model": name,
                "settings": settings.as_dict() | {"reference": options.reference},
                "evaluation": dataclasses.asdict(evaluation),
            }
            for name, evaluation in zip(names, evaluations, strict=True)
        ]
        write_whole(options.output, json.dumps(written, default=str) + "\n")
