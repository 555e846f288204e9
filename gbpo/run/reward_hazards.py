"""Warnings about settings that switch a reward off. Importing this file loads neither torch nor TRL."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from .data.prompts import PromptFormat
from .recipe.arguments import RunArguments
from .rewards import LIMITED_REWARDS
from .rewards_package import rewards_module

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BOXED_REWARDS = {"boxed", "cosine", "length", "math", "majority_vote"}
_FIRST_ROWS = 64
_THOUGHTS_BEGIN = re.compile(r"<think>(?P<end>[^<]*</think>)?\s*\Z")
_TAG = re.compile(r"</?\w+>")


def find(
    run: RunArguments,
    form: PromptFormat,
    dataset: Dataset,
    tokenizer: "PreTrainedTokenizerBase",
    max_completion_length: int,
    *,
    masks_truncated: bool = False,
) -> list[str]:
    """Find the rewards that no completion, or every completion, can get with these settings.

    Args:
        run: The reward fields of the recipe.
        form: The format of the prompts.
        dataset: The data set, with the column `prompt`.
        tokenizer: The tokenizer of the model.
        max_completion_length: Maximum number of tokens per completion.
        masks_truncated: Whether the loss leaves out completions that were cut off.

    Returns:
        One line per hazard, with the value, the consequence and the fix.
    """
    rewards = {name: run.reward_kwargs.get(name) or {} for name in run.reward_funcs or []}
    texts = [form.text(form.formatted(prompt, tokenizer), tokenizer) for prompt in dataset[:_FIRST_ROWS]["prompt"]]
    found = [*_limits(rewards, max_completion_length)]
    if masks_truncated:
        found += _masked(rewards)
    if "format" in rewards:
        pattern = rewards["format"].get("pattern", rewards_module("shape.format").THINK_ANSWER)
        found += [*_thoughts_in_the_prompt(pattern, texts[0]), *_removed_tags(pattern, tokenizer)]
    found += _no_box(rewards, texts, tokenizer)
    return found


def reads_boxes(name: str, options: dict[str, Any]) -> bool:
    r"""Whether a reward reads the answer from \boxed{}."""
    return name in _BOXED_REWARDS and options.get("boxed", True)


def _limits(rewards: dict[str, dict[str, Any]], limit: int) -> Iterator[str]:
    """Warn about a length in the options of a reward that completions do not reach, or pass."""
    for name in sorted(LIMITED_REWARDS & rewards.keys()):
        given = rewards[name].get("max_completion_length", limit)
        if given == limit:
            continue
        where = f"reward_kwargs gives {name} max_completion_length={given}, but completions end at {limit} tokens"
        if given < limit:
            effect = f"all completions of {given} tokens or more get the same reward"
        elif name == "soft_overlong" and limit <= given - rewards[name].get("soft_buffer", 0):
            effect = "no completion is penalised"
        else:
            effect = "no completion gets the reward of one that is too long"
        yield f"{where}: {effect}. Remove it from reward_kwargs; the reward then takes the limit of the completions."
    size = rewards.get("repetition", {}).get("ngram_size", 0)
    if size >= limit:
        yield (
            f"reward_kwargs gives repetition ngram_size={size}, but completions end at {limit} tokens: no completion "
            "can repeat an n-gram, so none is penalised. Write a smaller ngram_size."
        )


def _masked(rewards: dict[str, dict[str, Any]]) -> Iterator[str]:
    for name in sorted(LIMITED_REWARDS & rewards.keys()):
        yield (
            f"mask_truncated_completions=True with {name}: completions that are cut off get the largest penalty, but "
            "the loss leaves them out, so nothing is learnt from it. Write mask_truncated_completions: false, or "
            f"remove {name}."
        )


def _thoughts_in_the_prompt(pattern: str, text: str) -> Iterator[str]:
    """Warn if the prompt already contains the <think> that `format` expects in the completion."""
    begins = _THOUGHTS_BEGIN.search(text)
    if begins is None or "<think>" not in pattern:
        return
    rest = r"\s*<answer>.+</answer>\s*" if begins["end"] else r".+</think>\s*<answer>.+</answer>\s*"
    yield (
        f"format expects <think> in the completion, but every prompt ends with {begins[0]!r}: a completion that goes "
        "on from there gets 0. Write a pattern that begins after the prompt, for example reward_kwargs: {format: "
        f"{{pattern: '{rest}'}}}}."
    )


def _removed_tags(pattern: str, tokenizer: "PreTrainedTokenizerBase") -> Iterator[str]:
    """Warn if the trainer removes a tag that `format` expects before it calls the reward."""
    tags = dict.fromkeys(_TAG.findall(pattern))
    special = [tag for tag in tags if tag in tokenizer.all_special_tokens]
    if special:
        yield (
            f"format expects {', '.join(special)} in the completion, but the tokenizer of {tokenizer.name_or_path!r} "
            "has it as a special token, which the trainer removes: every completion gets 0. Write a pattern without "
            "it, or make it an ordinary token."
        )
    elif "<think>" in tags and getattr(tokenizer, "response_template", None) is not None:
        yield (
            f"format expects <think> in the completion, but the tokenizer of {tokenizer.name_or_path!r} has a "
            "response_template, with which the trainer takes the thoughts out of the completion: every completion "
            "gets 0. Write a pattern without thoughts, or remove the response_template."
        )


def _no_box(
    rewards: dict[str, dict[str, Any]], texts: list[str], tokenizer: "PreTrainedTokenizerBase"
) -> Iterator[str]:
    r"""Warn if a reward reads the answer from \boxed{}, and no prompt asks for it.

    A model with a token for `\boxed{` has learnt to write it and needs no request.
    """
    if "\\boxed{" in tokenizer.get_vocab():
        return
    readers = [name for name, options in rewards.items() if reads_boxes(name, options)]
    if readers and not any("boxed" in text for text in texts):
        yield (
            f"{readers[0]} reads the answer from \\boxed{{}} alone, but none of the first {len(texts)} prompts "
            "contains 'boxed': a model that does not box its answers gets 0 every time. Ask for it, for example "
            "with system_prompt: Put the final answer within \\boxed{}."
        )
