"""An evaluation calls the tools that the model calls, and counts only the tokens that the model wrote."""

import asyncio
import sys

import pytest

import calling
from evals.evaluate import tool_turns
from evals.evaluate.checkpoint import find_checkpoint
from evals.evaluate.settings import Settings
from evals.evaluate.tool_turns import ToolTurns
from gbpo.run.models.tiny import tiny_decoder
from gbpo.run.models.tool_chat import tool_tokenizer
from gbpo.run.recipe.arguments import RunArguments
from gbpo.run.tools.named_tools import Tools

CALL = '<|call|>add{{"a":{},"b":{}}}<|end|>'
LATER = CALL.replace("add", "later")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = tool_tokenizer()
    tiny_decoder(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return find_checkpoint(str(folder))


@pytest.fixture
def turns(checkpoint, tmp_path, monkeypatch):
    """`turns(texts, prompts, **settings)`: completions whose turns are the given texts, in order, and what was read."""
    (tmp_path / "my_tools.py").write_text(calling.TOOL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_tools", raising=False)

    def complete(texts, prompts, **settings):
        tokenizer, left, seen = checkpoint.tokenizer, iter(texts), []

        def generate(prompts):
            seen.extend(tokenizer.decode(prompt.ids) for prompt in prompts)
            return [tokenizer(next(left))["input_ids"] for _ in prompts]

        run = RunArguments(dataset_name="arithmetic", tools=["my_tools.add"])
        asked = Settings(run, **{"max_tokens": 100} | settings)
        ids = tokenizer([f"<|user|>{prompt}<|end|><|assistant|>" for prompt in prompts])["input_ids"]
        return ToolTurns(checkpoint, asked, generate).complete(ids), seen

    return complete


def test_calls_are_run_and_their_answers_are_not_the_models(turns, checkpoint):
    texts = [CALL.format(2, 3), "7<|end|>", CALL.format(9, 1), CALL.format(5, 5), "no<|end|>", "10<|end|>"]
    (two, none, failed), seen = turns(texts, ["2+3=", "3+4=", "9+1="])
    assert [message["role"] for message in two.messages] == ["assistant", "tool", "assistant", "tool", "assistant"]
    assert two.text == "10" and none.text == "7" and failed.text == "no"
    assert [message["content"] for message in two.messages if message["role"] == "tool"] == ["5", "10"]
    assert failed.messages[1]["content"] == "{'error': 'ArithmeticError: too hard'}"
    tokenizer = checkpoint.tokenizer
    whole = (
        f"{CALL.format(2, 3)}<|tool|>5<|end|><|assistant|>{CALL.format(5, 5)}<|tool|>10<|end|><|assistant|>10<|end|>"
    )
    assert tokenizer.decode(two.ids) == whole
    written = [token for token, own in zip(two.ids, two.written, strict=True) if own]
    assert tokenizer.decode(written) == f"{CALL.format(2, 3)}{CALL.format(5, 5)}10<|end|>"
    assert none.written == [1, 1]
    assert seen[-1] == f"<|user|>2+3=<|end|><|assistant|>{whole.removesuffix('10<|end|>')}"


def test_limits_of_turns_and_tokens(turns):
    (one,), _ = turns([CALL.format(2, 3), CALL.format(5, 5)], ["2+3="], tool_turns=1)
    assert [message["role"] for message in one.messages] == ["assistant", "tool", "assistant"] and one.text == ""
    (short,), _ = turns([CALL.format(2, 3)], ["2+3="], max_tokens=21)  # the call has 18 tokens, the answer 4
    assert [message["role"] for message in short.messages] == ["assistant"] and set(short.written) == {1}


def test_an_asynchronous_tool_and_a_session_of_each_completion(turns, monkeypatch):
    async def later(a: int, b: int) -> int:
        """
        Add later.

        Args:
            a: The first.
            b: The second.
        """
        await asyncio.sleep(0)
        return a + b

    class Session:
        def __init__(self):
            self.sum = 0

        def add(self, a: int, b: int) -> int:
            """
            Add to the sum.

            Args:
                a: The first.
                b: The second.
            """
            self.sum += a + b
            return self.sum

    monkeypatch.setattr(tool_turns, "load_tools", lambda run: Tools((later,), Session))
    texts = [CALL.format(1, 1), CALL.format(2, 2), CALL.format(1, 0), LATER.format(4, 4), "a<|end|>", "b<|end|>"]
    completions, _ = turns(texts, ["x", "y"])
    answers = [[m["content"] for m in one.messages if m["role"] == "tool"] for one in completions]
    assert answers == [["2", "3"], ["4", "8"]]


def test_vllm_is_refused():
    run = RunArguments(dataset_name="arithmetic", tools=["builtin:calculator"])
    assert (Settings(run).engine, Settings(run).tool_turns) == ("transformers", 8)
    with pytest.raises(ValueError, match="engine='vllm' with tools=.*Write engine='transformers'"):
        Settings(run, engine="vllm")
