"""The chat of the tiny models with tools: TRL writes and reads its calls; the training labels the assistant."""

import pytest
import torch
from transformers import AutoTokenizer
from trl.chat_template_utils import is_chat_template_prefix_preserving, parse_response, supports_tool_calling

from gbpo.run.models import tool_chat
from gbpo.run.models.tool_chat import call_message, tool_tokenizer
from gbpo.run.tools.calculator import calculator

CALL = '<|call|>calculator{"expression":"1+2"}'
CHAT = [
    {"role": "user", "content": "1+2="},
    call_message("calculator", expression="1+2"),
    {"role": "tool", "name": "calculator", "content": "3"},
    {"role": "assistant", "content": "3"},
]


@pytest.fixture(scope="module", params=["made", "loaded"])
def tokenizer(request, tmp_path_factory):
    made = tool_tokenizer('calculator{"expression":"1"}')
    if request.param == "made":
        return made
    made.save_pretrained(folder := tmp_path_factory.mktemp("tokenizer"))
    return AutoTokenizer.from_pretrained(folder, padding_side="left")


def read(tokenizer, text):
    prompt = tokenizer("<|user|>1+2=<|end|><|assistant|>")["input_ids"]
    return parse_response(tokenizer, tokenizer(text)["input_ids"], prefix=prompt, tools=[calculator])


def test_trl_accepts_the_template(tokenizer):
    assert supports_tool_calling(tokenizer)
    assert is_chat_template_prefix_preserving(tokenizer)
    expected = f"<|user|>1+2=<|end|><|assistant|>{CALL}<|end|><|tool|>3<|end|><|assistant|>3<|end|>"
    assert tokenizer.apply_chat_template(CHAT, tokenize=False) == expected
    ids = tokenizer.apply_chat_template(CHAT, return_dict=False)
    assert ids == tokenizer(expected)["input_ids"]
    assert len(ids) == 23  # tags and words have one token each


def test_a_call_is_read(tokenizer):
    assert read(tokenizer, f"{CALL}<|end|>") == CHAT[1]
    two = read(tokenizer, f"so{CALL}{CALL}<|end|>")
    assert two["content"] == "so" and two["tool_calls"] == 2 * CHAT[1]["tool_calls"]
    code = call_message("python", code='d = {"a": 1}\nprint(d, "é"[:0])')
    text = tokenizer.apply_chat_template([code], tokenize=False).removeprefix("<|assistant|>")
    assert read(tokenizer, text)["tool_calls"] == [
        {"type": "function", "function": {"name": "python", "arguments": {"code": 'd = {"a": 1}\nprint(d, ""[:0])'}}}
    ]


@pytest.mark.parametrize("text", ["3<|end|>", "<|call|>{}<|end|>", '<|call|>calculator{"a":<|end|>', CALL[:-1]])
def test_other_texts_are_no_calls(tokenizer, text):
    message = read(tokenizer, text)
    assert message["role"] == "assistant" and "tool_calls" not in message


def test_only_the_assistants_tokens_have_labels():
    tokenizer = tool_tokenizer()
    ids, labels = tool_chat._encoded(tokenizer, CHAT)
    assert ids.tolist() == tokenizer.apply_chat_template(CHAT, return_dict=False)
    assert tokenizer.decode(ids[labels != -100]) == f"{CALL}<|end|>3<|end|>"
    batch = tool_chat._batch(tokenizer, [(ids, labels), (ids[:5], labels[:5])])
    assert torch.equal(batch["input_ids"][1, :5], ids[:5]) and not batch["attention_mask"][1, 5:].any()
    assert (batch["labels"][1] == -100).all()
