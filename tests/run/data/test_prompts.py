"""The form of prompts: the system prompt, the template around the prompt, and the variables of the chat template."""

import pytest
from datasets import Dataset
from trl.chat_template_utils import qwen2_5_chat_template

from gbpo.run.data.prompts import PromptFormat
from gbpo.run.models.tiny import character_tokenizer
from gbpo.run.recipe.arguments import RunArguments
from gbpo.run.tools.calculator import calculator
from gbpo.run.tools.named_tools import schemas
from gbpo.run.tools.python_session import PythonSession
from templates import SWITCH

FORM = PromptFormat(system_prompt="Be brief.", prompt_template="Q: {prompt}\nA:", chat_template_kwargs={})


@pytest.fixture
def tokenizer():
    made = character_tokenizer()
    made.chat_template = SWITCH
    return made


def formatted(prompt, tokenizer, form=FORM):
    return form.format(Dataset.from_dict({"prompt": [prompt], "solution": ["2"]}), tokenizer)[0]


def test_a_text_becomes_messages_with_a_chat_template(tokenizer):
    assert formatted("1+1=", tokenizer) == {
        "solution": "2",
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Q: 1+1=\nA:"}],
    }


def test_a_text_stays_text_without_a_chat_template(tokenizer):
    tokenizer.chat_template = None
    assert formatted("1+1=", tokenizer)["prompt"] == "Be brief.\n\nQ: 1+1=\nA:"
    assert formatted("1+1=", tokenizer, PromptFormat())["prompt"] == "1+1="


def test_the_template_goes_around_the_last_message(tokenizer):
    turns = [("user", "2+2="), ("assistant", "4"), ("user", "1+1=")]
    messages = [{"role": role, "content": content} for role, content in turns]
    found = formatted(messages, tokenizer)["prompt"]
    assert [message["role"] for message in found] == ["system", "user", "assistant", "user"]
    assert [message["content"] for message in found] == ["Be brief.", "2+2=", "4", "Q: 1+1=\nA:"]
    assert formatted(messages, tokenizer, PromptFormat())["prompt"] == messages


def test_the_tokens_are_those_of_the_text_with_the_variables(tokenizer):
    form = PromptFormat(chat_template_kwargs={"enable_thinking": False})
    prompts = form.format(Dataset.from_dict({"prompt": ["1+1=", "10+10="]}), tokenizer)["prompt"]
    texts = [f"<|user|>{sum_}<|end|><|assistant|><think>\n\n</think>\n\n" for sum_ in ("1+1=", "10+10=")]
    assert [form.text(prompt, tokenizer) for prompt in prompts] == texts
    assert form.token_ids(prompts, tokenizer) == tokenizer(texts)["input_ids"]
    # one token per character of the text and per special token: 3 + 6 for the sum, and 19 for the empty thoughts
    assert form.longest(Dataset.from_dict({"prompt": ["1+1=", "10+10="]}), tokenizer) == 3 + 6 + 19
    assert PromptFormat().longest(Dataset.from_dict({"prompt": ["1+1=", "10+10="]}), tokenizer) == 3 + 6


def test_the_longest_of_many_prompts_is_found(tokenizer):
    tokenizer.chat_template = None
    assert PromptFormat().longest(Dataset.from_dict({"prompt": ["1"] * 100 + ["1+1="] + ["1"] * 100}), tokenizer) == 4


def test_descriptions_of_tools_are_written_as_trl_writes_them(tokenizer):
    """TRL gives the functions themselves to the chat template."""
    tokenizer.chat_template = qwen2_5_chat_template
    run = RunArguments(dataset_name="arithmetic", tools=["builtin:calculator", "builtin:python"])
    form, messages = PromptFormat(tools=schemas(run)), [{"role": "user", "content": "1+1="}]
    expected = tokenizer.apply_chat_template(
        messages, tools=[calculator, PythonSession().python], add_generation_prompt=True, tokenize=False
    )
    assert form.text(messages, tokenizer) == expected
    assert '"name": "calculator"' in expected and "Variables of earlier calls" in expected
    assert form.token_ids([messages], tokenizer) == [tokenizer(expected)["input_ids"]]
    assert PromptFormat().text(messages, tokenizer) != expected
