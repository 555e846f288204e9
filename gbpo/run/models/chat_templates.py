"""Checks that a chat template writes the prompts of a data set, before the weights of the model are loaded."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jinja2.meta
from datasets import Dataset

from ..data.prompts import PromptFormat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..recipe.parsing import Recipe  # which loads TRL: `check_prompts` is used without it

Messages = list[dict[str, Any]]

# transformers' tag around answers, which jinja2 does not know
_GENERATION_TAG = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")

_OTHER_TEMPLATE = "give another template with chat_template_path"


def check_recipe_prompts(recipe: "Recipe", train_set: Dataset, eval_set: Dataset | None, tokenizer: Any) -> None:
    """Check the prompts of a recipe's data sets, as `check_prompts`."""
    run, form = recipe.run, PromptFormat.of(recipe)
    check_prompts(train_set, run.dataset_name, form, tokenizer)
    if eval_set is not None:
        check_prompts(eval_set, run.eval_dataset_name or run.dataset_name, form, tokenizer)


def check_prompts(dataset: Dataset, name: str, form: PromptFormat, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Check that every message of the prompts reaches the model.

    The chat template is applied to the first prompt of each sequence of roles in the data set.

    Args:
        dataset: The data set, with the column `prompt`.
        name: Its name, for the errors.
        form: The format of the prompts.
        tokenizer: The tokenizer of the model.

    Raises:
        ValueError: The template fails or leaves a message out, or there are messages but no template.
    """
    first: dict[tuple[str, ...], int] = {}
    for row, prompt in enumerate(dataset["prompt"]):
        first.setdefault(() if isinstance(prompt, str) else _roles(prompt), row)
    for roles, row in first.items():
        place = f"row {row} of {name!r}"
        if roles and tokenizer.chat_template is None:
            raise ValueError(
                f"The prompt in {place} is a list of messages, but the tokenizer of {tokenizer.name_or_path!r} has no "
                "chat template to write them as text. Use an instruct model, give a template with chat_template_path, "
                "or write dataset_columns: {COLUMN: prompt} for a column of text."
            )
        prompt = form.formatted(dataset[row]["prompt"], tokenizer)
        if not isinstance(prompt, str):
            _check_messages(prompt, place, form, tokenizer)


def unread_variables(form: PromptFormat, tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """A line if `chat_template_kwargs` names variables that the chat template does not read."""
    read = set()
    if form.chat_template_kwargs and tokenizer.chat_template is not None:
        template = _GENERATION_TAG.sub("", tokenizer.get_chat_template())
        parsed = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template)
        read = jinja2.meta.find_undeclared_variables(parsed)
    unread = [name for name in form.chat_template_kwargs if name not in read]
    if not unread:
        return []
    return [
        f"chat_template_kwargs={dict(form.chat_template_kwargs)}: {_template(form, tokenizer)} does not read "
        f"{', '.join(unread)}, so it changes no prompt. Correct the name, or remove it."
    ]


def _check_messages(messages: Messages, place: str, form: PromptFormat, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Raise `ValueError` if the template fails for the messages of a row, or leaves one of them out."""
    try:
        text = form.text(messages, tokenizer)
    except Exception as error:  # a template may raise any error
        raise _refusal(messages, place, " ".join(str(error).split()), form, tokenizer) from None
    for i, message in enumerate(messages):
        content = message["content"]
        more = f"{content} 2+3" if not isinstance(content, list) else [*content, {"type": "text", "text": " 2+3"}]
        other = {**message, "content": more}
        is_read = form.text([*messages[:i], other, *messages[i + 1 :]], tokenizer) != text
        if is_read or message["role"] == "assistant":  # templates shorten earlier answers
            continue
        template = _template(form, tokenizer)
        if i == 0 and form.system_prompt:
            raise ValueError(
                f"system_prompt={form.system_prompt!r} would not reach the model, because {template} leaves system "
                f"messages out. {_MOVED}"
            )
        raise ValueError(
            f"{template} leaves out the {message['role']} message in {place}, so the model would not see it. Write "
            f"{{{{ message['content'] }}}} where the message goes, or {_OTHER_TEMPLATE}."
        )


_MOVED = "Remove system_prompt, and write its text before {prompt} in prompt_template."


def _refusal(
    messages: Messages, place: str, reason: str, form: PromptFormat, tokenizer: "PreTrainedTokenizerBase"
) -> ValueError:
    """The error for messages at which the template fails: what it refuses, and what to write instead."""
    template, kwargs = _template(form, tokenizer), form.chat_template_kwargs
    without_system = [message for message in messages if message["role"] != "system"]

    def works(messages: Messages, kwargs: Mapping[str, Any] = kwargs) -> bool:
        try:
            PromptFormat(chat_template_kwargs=kwargs).text(messages, tokenizer)
        except Exception:  # as above
            return False
        return True

    if kwargs and works(messages, {}):
        return ValueError(
            f"chat_template_kwargs={dict(kwargs)} cannot be used with {template}: {reason}. Correct or remove them."
        )
    if not works([{"role": "user", "content": "2+3"}]):
        return ValueError(f"{template} does not work as a Jinja template: {reason}. Correct it, or {_OTHER_TEMPLATE}.")
    if form.system_prompt and works(messages[1:]):
        fix = "Remove system_prompt." if messages[1]["role"] == "system" else _MOVED
        return ValueError(
            f"system_prompt={form.system_prompt!r}: {template} refuses it before the "
            f"{messages[1]['role']} message in {place}: {reason}. {fix}"
        )
    if works(without_system):
        return ValueError(
            f"{template} refuses the system message in {place}: {reason}. Write its text in the user message, or "
            f"{_OTHER_TEMPLATE}."
        )
    return ValueError(
        f"{template} refuses the roles {', '.join(_roles(messages))} in {place}: {reason}. Change the messages, which "
        f"usually must be user and assistant in turn, or {_OTHER_TEMPLATE}."
    )


def _template(form: PromptFormat, tokenizer: "PreTrainedTokenizerBase") -> str:
    if form.chat_template_path is not None:
        return f"chat_template_path={form.chat_template_path!r}"
    return f"the chat template of {tokenizer.name_or_path!r}"


def _roles(messages: Messages) -> tuple[str, ...]:
    return tuple(message["role"] for message in messages)
