"""Tiny models that call tools: their tokenizer and chat template, and their training on conversations.

The model calls a tool with `<|call|>`, the name of the tool and its arguments as JSON:

    <|user|>123+456=<|end|><|assistant|><|call|>calculator{"expression":"123+456"}<|end|>
    <|tool|>579<|end|><|assistant|>579<|end|>
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import Qwen2Tokenizer

from .tiny import Batch, character_tokenizer, tiny_decoder, train_until_right

Messages = list[dict[str, Any]]

_CALL, _ANSWER = "<|call|>", "<|tool|>"

# The descriptions of the tools are not written: these models know their tools from demonstrations.
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + (message['content'] or '') }}"
    "{% for call in message['tool_calls'] or [] %}"
    "{{ '<|call|>' + call['function']['name'] + call['function']['arguments'] | tojson(separators=(',', ':')) }}"
    "{% endfor %}{{ '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

# How transformers reads the calls. A call whose arguments are no JSON is text.
_RESPONSE_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|assistant|>",
    "fields": {
        "tool_calls": {
            "open_pattern": r"<\|call\|>(?P<name>\w+)",
            "close_pattern": r"(?=<\|call\|>|<\|end\|>)",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
        },
        "content": {"close_pattern": r"<\|end\|>", "content": "text"},
    },
}


def tool_tokenizer(text: str = "") -> Qwen2Tokenizer:
    """The tokenizer of the tiny models with a chat template that writes and reads calls of tools.

    Args:
        text: Text whose words get tokens of their own, for example a call. Other characters have one token each.
    """
    tokenizer = character_tokenizer(text)
    tokenizer.add_tokens([_CALL, _ANSWER], special_tokens=True)
    tokenizer.chat_template = _CHAT_TEMPLATE
    tokenizer.response_template = _RESPONSE_TEMPLATE
    return tokenizer


def call_message(name: str, **arguments: Any) -> dict[str, Any]:
    """The message of an assistant who calls one tool."""
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def warm_start(
    directory: Path,
    tokenizer: Qwen2Tokenizer,
    demonstrations: Sequence[Messages],
    right: Sequence[Messages],
    *,
    batch: int = 128,
    learning_rate: float = 3e-3,
) -> None:
    """Train a tiny model on conversations until it writes right ones often enough, and save it with its tokenizer.

    Only the assistant's tokens have labels.

    Args:
        directory: Folder to save to.
        tokenizer: What `tool_tokenizer` returned.
        demonstrations: The conversations to train on.
        right: Conversations in which the assistant does all as it should. The training ends when the model would write
            all of the assistant's tokens of such a conversation often enough (`tiny.train_until_right`).
        batch: Conversations per training step.
        learning_rate: Learning rate of AdamW.
    """
    model = tiny_decoder(tokenizer)
    examples = [_encoded(tokenizer, messages) for messages in demonstrations]
    held_out = _batch(tokenizer, [_encoded(tokenizer, messages) for messages in right])
    rng = torch.Generator().manual_seed(0)

    def sample() -> Batch:
        chosen = torch.randint(len(examples), (batch,), generator=rng).tolist()
        return _batch(tokenizer, [examples[i] for i in chosen])

    train_until_right(model, sample, held_out, learning_rate)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _encoded(tokenizer: Qwen2Tokenizer, messages: Messages) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels of a conversation. The token that opens the assistant's turn has no label."""
    ids = torch.tensor(tokenizer.apply_chat_template(messages, return_dict=False))
    opens = tokenizer.convert_tokens_to_ids([f"<|{role}|>" for role in ("system", "user", "tool", "assistant")])
    turn = torch.isin(ids, torch.tensor(opens)).cumsum(0) - 1
    of_assistant = torch.tensor([message["role"] == "assistant" for message in messages])[turn]
    return ids, ids.masked_fill(~of_assistant | (ids == opens[-1]), -100)


def _batch(tokenizer: Qwen2Tokenizer, examples: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Batch:
    ids, labels = zip(*examples, strict=True)
    padded = pad_sequence(list(ids), batch_first=True, padding_value=tokenizer.pad_token_id)
    return {
        "input_ids": padded,
        "attention_mask": (padded != tokenizer.pad_token_id).long(),
        "labels": pad_sequence(list(labels), batch_first=True, padding_value=-100),
    }
