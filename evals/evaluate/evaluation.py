"""Evaluate a checkpoint: generate completions, grade them, and compute its scores."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from statistics import fmean
from typing import Any

from datasets import Dataset

from gbpo.run.recipe.arguments import RunArguments
from gbpo.run.reward_hazards import reads_boxes
from gbpo.run.rewards import load_rewards, named_rewards
from gbpo.run.rewards_package import rewards_module
from gbpo.shared.write_whole import write_whole

from ..shared.results import Evaluation
from . import cache, generation
from .checkpoint import Checkpoint, find_checkpoint
from .divergence import divergence
from .grading import grade
from .settings import Settings


def evaluate(
    model: str,
    questions: Dataset,
    settings: Settings,
    reference: str | None = None,
    *,
    step: int = 0,
    use_cache: bool = True,
) -> Evaluation:
    """Evaluate a checkpoint on questions.

    Completions that the reward leaves ungraded count as 0. Their number is printed as a warning.

    Args:
        model: Folder of a model or of an adapter, Hub id, or name of a builtin model.
        questions: Data set from `gbpo.run.data.loading.load`, with `prompt` and the columns that the reward reads.
        settings: Reward and sampling.
        reference: Model to measure the KL divergence from; see `evals.evaluate.divergence`.
        step: Optimiser step of the checkpoint, copied to the result.
        use_cache: Read the result from the cache if the cache contains it. A new result is always written to the cache.

    Raises:
        ValueError: The model cannot be read, a column is missing, or reference answers do not grade themselves as
            correct.
    """
    reward = load_rewards(settings.run, questions, settings.max_tokens)[0]
    policy = find_checkpoint(model, settings.run.chat_template_path)
    start = find_checkpoint(reference) if reference is not None else None
    if start is not None and start.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise ValueError(
            f"reference={reference!r} has another vocabulary than {model!r}, so their KL divergence is undefined. Give "
            "the model that the training started from."
        )
    path = cache.cache_file(policy, start, questions, settings, reward)
    known = cache.read(path) if use_cache else None
    if known is None:
        checks = rewards_module("check")
        checks.check_sample(_reward_name(settings.run), reward, questions)
        checks.check_server(reward, questions)
        known = _measure(policy, start, questions, settings, reward)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(known, default=str) + "\n")
    else:
        print(f"gbpo evaluate: {model}: cached, {path}", flush=True)
    if known["ungraded"]:
        total = len(questions) * (settings.samples + 1)
        print(
            f"gbpo evaluate: warning: {model}: the reward left {known['ungraded']} of {total} completions ungraded. "
            "They count as 0.",
            file=sys.stderr,
            flush=True,
        )
    return Evaluation(**known["evaluation"] | {"step": step})


def _measure(
    policy: Checkpoint,
    reference: Checkpoint | None,
    questions: Dataset,
    settings: Settings,
    reward: Callable[..., Any],
) -> dict[str, Any]:
    """The content of a cache file: `evaluation` (a dict) and `ungraded` (the number of ungraded completions)."""
    k, count = settings.samples, len(questions)
    formatted = settings.prompts.format(questions, policy.tokenizer)
    prompts = settings.prompts.token_ids(formatted["prompt"], policy.tokenizer)
    sampled, greedy = generation.completions(policy, prompts, settings)
    texts = [completion.text for completion in sampled]
    columns = formatted.to_dict()
    repeated = {name: [value for value in values for _ in range(k)] for name, values in columns.items()}
    scores, ungraded = grade(reward, repeated, sampled)
    greedy_scores, greedy_ungraded = grade(reward, columns, greedy)

    # The vote is by question number, because two questions may have the same prompt.
    ballots = [f"question {i}" for i in range(count) for _ in range(k)]
    boxed = all(reads_boxes(name, options) for name, options in named_rewards(settings.run).items())
    votes = rewards_module("answers.majority_vote").MajorityVote(boxed=boxed)(texts, prompts=ballots)
    groups = [slice(i * k, (i + 1) * k) for i in range(count)]
    elected = [next((i for i in range(*group.indices(len(votes))) if votes[i] == 1.0), None) for group in groups]
    kl = None
    if reference is not None:
        repeated_prompts = [ids for ids in prompts for _ in range(k)]
        kl = divergence(
            policy,
            reference,
            repeated_prompts,
            [one.ids for one in sampled],
            settings.batch_size,
            [one.written for one in sampled],
        )
    evaluation = Evaluation(
        step=0,
        samples=k,
        scores=[fmean(scores[group]) for group in groups],
        correct=[scores[group].count(1.0) for group in groups],
        majority=[0.0 if i is None else scores[i] for i in elected],
        greedy=greedy_scores,
        completions=texts[::k],
        mean_tokens=fmean(sum(one.written) for one in sampled),
        truncated=fmean(not one.ids or one.ids[-1] not in policy.end_tokens for one in sampled),
        kl_to_start=kl,
    )
    return {"evaluation": dataclasses.asdict(evaluation), "ungraded": ungraded + greedy_ungraded}


def _reward_name(run: RunArguments) -> str:
    return run.reward_funcs[0] if run.reward_funcs else "reasoning_gym"
