"""What cannot work with tools ends with one line, before a model is loaded."""

import json
from pathlib import Path

import pytest

from gbpo.run.models.tiny import character_tokenizer, tiny_decoder
from gbpo.run.models.tool_chat import tool_tokenizer
from gbpo.run.tools.possible import check_possible
from gbpo.run.tools.template import tool_template

TOOLS = str(Path(__file__).parents[3] / "recipes" / "tiny_tools.yaml")
VOTES = ["--reward_funcs", "majority_vote", "--reward_kwargs", "{majority_vote: {votes: 16, boxed: false}}"]

UNUSABLE = '''
add_again = add


def add_all(*terms: int) -> str:
    """Add.

    Args:
        terms: The terms.
    """


def double(term: int, /) -> str:
    """Double.

    Args:
        term: The term.
    """


def count(end: int) -> str:
    """Count.

    Args:
        end: The last number.
    """
    yield "1"
'''

# arguments → words that the line must contain: the given value and the fix
CASES = {
    "unknown builtin": (["--tools", "builtin:pyton"], ["builtin:pyton", "'builtin:python'", "my_module.search"]),
    "no dotted path": (["--tools", "add"], ["'add'", "my_module.search"]),
    "missing module": (["--tools", "nowhere.add"], ["nowhere.add", "PYTHONPATH"]),
    "missing function": (["--tools", "my_tools.multiply"], ["multiply", "Correct the name"]),
    "a number": (["--tools", "my_tools.number"], ["my_tools.number", "int"]),
    "an object": (["--tools", "my_tools.search"], ["my_tools.search", "Search", "Write a function"]),
    "a class": (["--tools", "my_tools.Search"], ["my_tools.Search", "type", "Write a function"]),
    "no type hints": (["--tools", "my_tools.no_hints"], ["my_tools.no_hints", "type hint"]),
    "no docstring": (["--tools", "my_tools.no_docstring"], ["my_tools.no_docstring", "docstring"]),
    "arguments without names": (["--tools", "my_tools.add_all"], ["my_tools.add_all", "'*terms'", "without * and /"]),
    "an argument without a name": (["--tools", "my_tools.double"], ["my_tools.double", "'term'", "without * and /"]),
    "a generator": (["--tools", "my_tools.count"], ["my_tools.count", "yields", "Return a text"]),
    "two of one name": (["--tools", "my_tools.add", "my_tools.add_again"], ["my_tools.add_again", "'add'", "Rename"]),
    "no turns": (["--max_tool_calling_iterations", "0"], ["max_tool_calling_iterations=0", "1 or more"]),
    "no time": (["--tool_timeout", "0"], ["tool_timeout=0", "above 0"]),
    "endless time": (["--tool_timeout", "inf"], ["tool_timeout=inf", "above 0"]),
    "sampled ahead": (["--generate_ahead", "1"], ["generate_ahead=1 with tools", "Remove generate_ahead or tools"]),
    "sampled in another dtype": (
        ["--sampling_dtype", "bfloat16"],
        ["sampling_dtype=bfloat16 with tools", "Remove sampling_dtype or tools"],
    ),
    "votes": (VOTES, ["1 more round(s)", "Remove votes or tools"]),
    "chat template without calls": (["--model_name_or_path", "plain"], ["'plain'", "tool_calls", "chat_template_path"]),
    "no chat template": (["--model_name_or_path", "base"], ["'base'", "no chat template", "Qwen"]),
    "calls that cannot be read": (["--model_name_or_path", "unread"], ["'unread'", "response_template"]),
    "changing history": (["--model_name_or_path", "changing"], ["'changing'", "another way"]),
}
WITHOUT = {
    "turns without tools": (["--max_tool_calling_iterations", "3"], ["max_tool_calling_iterations", "tools: ["]),
    "timeout without tools": (["--tool_timeout", "3"], ["tool_timeout", "tools: ["]),
}


def save_tokenizers(folder):
    """Folders with a configuration and a tokenizer whose chat template cannot be used with tools."""
    made = {name: tool_tokenizer() for name in ("unread", "changing", "base")} | {"plain": character_tokenizer()}
    made["unread"].response_template = None
    made["base"].chat_template = None
    last = "{% if not loop.last %}!{% endif %}"
    made["changing"].chat_template = made["changing"].chat_template.replace("{{ '<|end|>' }}", last + "{{ '<|end|>' }}")
    for name, tokenizer in made.items():
        tokenizer.save_pretrained(folder / name)
        tiny_decoder(tokenizer).config.save_pretrained(folder / name)
        config = json.loads((folder / name / "config.json").read_text())
        (folder / name / "config.json").write_text(json.dumps(config | {"architectures": ["Qwen2ForCausalLM"]}))


@pytest.mark.parametrize("case", CASES | WITHOUT)
def test_one_clear_line_before_a_model_is_loaded(case, my_tools, refused):
    with (my_tools / "my_tools.py").open("a") as file:
        file.write(UNUSABLE)
    argv, words = (CASES | WITHOUT)[case]
    if "--model_name_or_path" in argv:
        save_tokenizers(my_tools)
    refused([TOOLS if case in CASES else TOOLS.replace("tiny_tools", "tiny_math"), *argv], words)


def arguments(**changed):
    from types import SimpleNamespace

    usual = {"generate_ahead": 0, "use_vllm": True, "vllm_mode": "colocate", "world_size": 2}
    return SimpleNamespace(**usual | {"vllm_tensor_parallel_size": 1} | changed)


@pytest.mark.parametrize(
    ("changed", "sharded", "words"),
    [
        ({"vllm_mode": "server"}, False, ["vllm_mode='server'", "2 processes", "vllm_mode: colocate"]),
        ({"vllm_tensor_parallel_size": 2}, False, ["vllm_tensor_parallel_size=2", "vllm_tensor_parallel_size: 1"]),
        ({"use_vllm": False}, True, ["split over 2 processes", "use_vllm: true"]),
    ],
)
def test_processes_that_would_wait_for_each_other(changed, sharded, words):
    with pytest.raises(ValueError, match="wait for each other") as caught:
        check_possible(arguments(**changed), "tools", vote_rounds=None, sharded=sharded)
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "sharded"),
    [
        ({}, True),
        ({"vllm_mode": "server", "world_size": 1}, False),
        ({"use_vllm": False, "vllm_tensor_parallel_size": 4}, False),
    ],
)
def test_what_works_is_not_refused(changed, sharded):
    check_possible(arguments(**changed), "tools", vote_rounds=0, sharded=sharded)


def test_the_chat_template_of_trl_replaces_one_that_changes():
    """The template of Qwen3 drops earlier thoughts. TRL has another one, which keeps them."""
    from trl.chat_template_utils import qwen3_chat_template, qwen3_training_chat_template

    tokenizer = character_tokenizer()
    tokenizer.chat_template = qwen3_chat_template
    reader, template = tool_template(tokenizer)
    assert template == qwen3_training_chat_template
    assert reader.response_template is not None and tokenizer.response_template is None
