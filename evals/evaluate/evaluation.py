"""Evaluate a checkpoint: generate completions, grade them, and compute its scores."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from datasets import Dataset

from gbpo.run.environments.checks import Episodes, load_episodes
from gbpo.run.environments.episode import gives_reward
from gbpo.run.recipe.arguments import RunArguments
from gbpo.run.reward_hazards import reads_boxes
from gbpo.run.rewards import load_rewards, named_rewards
from gbpo.run.rewards_package import rewards_module
from gbpo.shared.write_whole import write_whole

from ..shared.results import Evaluation
from . import cache, generation
from .checkpoint import Checkpoint, find_checkpoint
from .completion import Answer
from .divergence import divergence
from .grading import grade
from .prompt import read_prompts
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

    Completions that the reward leaves ungraded count as 0. Their number is printed as a warning. Broken episodes of an
    environment count nowhere. A result with ungraded completions is not cached, because the server of a reward may have
    failed.

    Args:
        model: Folder of a model or of an adapter, Hub id, or name of a builtin model.
        questions: Data set from `gbpo.run.data.loading.load`, with `prompt` and the columns that the reward reads.
        settings: Reward and sampling.
        reference: Model to measure the KL divergence from; see `evals.evaluate.divergence`.
        step: Optimiser step of the checkpoint, copied to the result.
        use_cache: Read the result from the cache if the cache contains it. A new result is written to the cache.

    Raises:
        ValueError: The model cannot be read, a column is missing, reference answers do not grade themselves as
            correct, or all episodes of a question are broken.
    """
    run = settings.run
    reward = next(iter(load_rewards(run, questions, settings.max_tokens)), None)
    episodes = episodes_of_test(run, questions)
    policy = find_checkpoint(model, run.chat_template_path, run.image_column)
    start = find_checkpoint(reference, image_column=run.image_column) if reference is not None else None
    if start is not None and start.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise ValueError(
            f"reference={reference!r} has another vocabulary than {model!r}, so their KL divergence is undefined. Give "
            "the model that the training started from."
        )
    path = cache.cache_file(policy, start, questions, settings, reward, episodes)
    known = cache.read(path) if use_cache else None
    if known is None:
        if reward is not None:
            checks = rewards_module("check")
            checks.check_sample(_reward_name(run), reward, questions)
            checks.check_server(reward, questions)
        known = dataclasses.asdict(_measure(policy, start, questions, settings, reward, episodes))
        if not known["ungraded"]:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(known, default=str) + "\n")
    else:
        print(f"gbpo evaluate: {model}: cached, {path}", flush=True)
    found = Evaluation(**known | {"step": step})
    if found.ungraded:
        print(
            f"gbpo evaluate: warning: {model}: the reward left {found.ungraded} of {found.completed} completions "
            "ungraded. They count as 0.",
            file=sys.stderr,
            flush=True,
        )
    return found


def episodes_of_test(run: RunArguments, questions: Dataset) -> Episodes:
    """The environments of an evaluation. Empty without an environment.

    Raises:
        ValueError: An environment cannot be used, or gives no reward although no other reward is named.
    """
    episodes = load_episodes(run, questions, None, has_rewards=True)
    for name, kind in episodes.items():
        if not (run.reward_funcs or gives_reward(kind)):
            raise ValueError(
                f"environment={run.environment!r}: {name or kind.__name__} has no method get_reward, so its episodes "
                "would have no score. Write --reward (in a comparison --eval_reward), or add get_reward."
            )
    return episodes


def _measure(
    policy: Checkpoint,
    reference: Checkpoint | None,
    questions: Dataset,
    settings: Settings,
    reward: Callable[..., Any] | None,
    episodes: Episodes,
) -> Evaluation:
    k = settings.samples
    formatted = settings.prompts.format(questions, policy.tokenizer)
    if episodes:
        from .acting import act  # loads TRL

        sampled, greedy = act(policy, formatted, settings, episodes, reward)
    else:
        assert reward is not None  # because there is no environment
        sampled, greedy = _answer(policy, formatted, settings, reward)
    groups = [sampled[first : first + k] for first in range(0, len(sampled), k)]
    scores = [[_score(answer) for answer in _unbroken(group, f"question {i}")] for i, group in enumerate(groups)]
    kept = [answer for answer in sampled if answer.failure is None]
    kl = None
    if reference is not None:
        kl = divergence(
            policy,
            reference,
            [answer.prompt for answer in kept],
            [answer.completion.ids for answer in kept],
            settings.prompts,
            settings.batch_size,
            [answer.completion.written for answer in kept],
        )
    return Evaluation(
        step=0,
        samples=k,
        scores=[fmean(own) for own in scores],
        correct=[own.count(1.0) for own in scores],
        majority=None if episodes else _majority(groups, settings.run),
        greedy=[_score(answer) for answer in _unbroken(greedy, "greedy decoding")],
        completions=[_shown(group[0], policy, whole=bool(episodes)) for group in groups],
        mean_tokens=fmean(sum(answer.completion.written) for answer in kept),
        truncated=fmean(_is_cut_off(answer, policy) for answer in kept),
        kl_to_start=kl,
        unbroken=[len(own) for own in scores] if episodes else None,
        ungraded=sum(answer.score is None and answer.failure is None for answer in [*sampled, *greedy]),
    )


def _answer(
    policy: Checkpoint, formatted: Dataset, settings: Settings, reward: Callable[..., Any]
) -> tuple[list[Answer], list[Answer]]:
    """The graded sampled and greedy completions."""
    prompts = read_prompts(formatted, settings.prompts, policy)
    written = generation.completions(policy, prompts, settings)
    columns = {name: [*formatted[name]] for name in formatted.column_names}
    if prompts[0].messages is not None:
        columns["prompt"] = [prompt.messages for prompt in prompts]  # with the images, as in training
    answers = []
    for completions, times in zip(written, (settings.samples, 1), strict=True):
        repeated = {name: [value for value in values for _ in range(times)] for name, values in columns.items()}
        asked = [prompt for prompt in prompts for _ in range(times)]
        answers.append([*map(Answer, asked, completions, grade(reward, repeated, completions))])
    sampled, greedy = answers
    return sampled, greedy


def _score(answer: Answer) -> float:
    return 0.0 if answer.score is None else answer.score


def _unbroken(answers: Sequence[Answer], which: str) -> list[Answer]:
    """The answers whose episodes are not broken.

    Raises:
        ValueError: There is none.
    """
    kept = [answer for answer in answers if answer.failure is None]
    if not kept:
        raise ValueError(
            f"All {len(answers)} episodes of {which} are broken, the first because {answers[0].failure}. So there is "
            "no score. Repair the environment or start its server, and run the command again."
        )
    return kept


def _majority(groups: Sequence[Sequence[Answer]], run: RunArguments) -> list[float]:
    """The score of the most common answer of each group. A group without any answer has 0."""
    boxed = all(reads_boxes(name, options) for name, options in named_rewards(run).items())
    texts = [answer.completion.text for group in groups for answer in group]
    # the vote is by question number, because two questions may have the same prompt
    ballots = [f"question {i}" for i, group in enumerate(groups) for _ in group]
    won = iter(rewards_module("answers.majority_vote").MajorityVote(boxed=boxed)(texts, prompts=ballots))
    elected = [[answer for answer in group if next(won) == 1.0] for group in groups]
    return [_score(winners[0]) if winners else 0.0 for winners in elected]


def _shown(answer: Answer, policy: Checkpoint, *, whole: bool) -> str:
    """The text of a completion. The whole text contains all turns."""
    return policy.tokenizer.decode(answer.completion.ids) if whole else answer.completion.text


def _is_cut_off(answer: Answer, policy: Checkpoint) -> bool:
    ids = answer.completion.ids
    return not ids or ids[-1] not in policy.end_tokens


def _reward_name(run: RunArguments) -> str:
    return run.reward_funcs[0] if run.reward_funcs else "reasoning_gym"
