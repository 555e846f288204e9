"""Whether a chat template can write and read the calls of tools."""

from copy import copy
from typing import Any

from trl.chat_template_utils import (
    add_response_schema,
    get_training_chat_template,
    is_chat_template_prefix_preserving,
    supports_tool_calling,
)

_FIX = "Use a model that was trained to call tools, such as Qwen/Qwen2.5-1.5B-Instruct"


def tool_template(tokenizer: Any) -> tuple[Any, str | None]:
    """A copy of a tokenizer that reads calls of tools, and the chat template that replaces its own, as in TRL.

    Raises:
        ValueError: The chat template does not write calls, no way to read its calls is known, or it writes earlier
            messages in another way when later ones follow.
    """
    name = tokenizer.name_or_path
    if tokenizer.chat_template is None:
        raise ValueError(
            f"tools: the tokenizer of {name!r} has no chat template, so no tool could be called. {_FIX}, or give a "
            "template with chat_template_path."
        )
    if not supports_tool_calling(tokenizer):
        raise ValueError(
            f"tools: the chat template of {name!r} leaves out calls of tools or their answers, so the model would not "
            f"see them. {_FIX}, or give a template with chat_template_path that writes tool_calls and the role tool."
        )
    tokenizer = copy(tokenizer)
    if getattr(tokenizer, "response_template", None) is None:
        try:
            add_response_schema(tokenizer)
        except ValueError:
            raise ValueError(
                f"tools: the tokenizer of {name!r} has no response_template, and TRL 1.16 knows none for its chat "
                f"template, so calls of tools could not be read. {_FIX}, or save the tokenizer with a "
                "response_template."
            ) from None
    if is_chat_template_prefix_preserving(tokenizer):
        return tokenizer, None
    try:
        return tokenizer, get_training_chat_template(tokenizer)
    except ValueError:
        raise ValueError(
            f"tools: the chat template of {name!r} writes an earlier message in another way when an answer of a tool "
            f"follows, so the tokens of a completion could not be continued. {_FIX}, or give a template with "
            "chat_template_path."
        ) from None
