"""The builtin model of the demo of tools: it adds three-digit numbers, sometimes with the calculator."""

import json
import random
from pathlib import Path

from ..data import arithmetic
from .tool_chat import Messages, call_message, tool_tokenizer, warm_start

MAX_OPERAND = 999
CALLS = 0.25  # share of the demonstrations that call the calculator


def build(directory: Path) -> None:
    """Train the starting model on sums of numbers up to `MAX_OPERAND`, and save it to `directory`.

    Some demonstrations call the calculator and copy its answer. The others guess, which is almost never right: a model
    of this size does not learn these sums. So the model knows how to call, and does not know that it should.
    """
    rng = random.Random(0)
    text = "calculator" + json.dumps({"expression": "1"}, separators=(",", ":"))
    warm_start(
        directory,
        tool_tokenizer(text),
        demonstrations=[_called(rng) if rng.random() < CALLS else _guessed(rng) for _ in range(10_000)],
        right=[_called(rng) for _ in range(256)],
    )


def _called(rng: random.Random) -> Messages:
    left, right = _operands(rng)
    return [
        {"role": "user", "content": arithmetic.question(left, right)},
        call_message("calculator", expression=f"{left}+{right}"),
        {"role": "tool", "name": "calculator", "content": str(left + right)},
        {"role": "assistant", "content": str(left + right)},
    ]


def _guessed(rng: random.Random) -> Messages:
    return [
        {"role": "user", "content": arithmetic.question(*_operands(rng))},
        {"role": "assistant", "content": str(sum(_operands(rng)))},
    ]


def _operands(rng: random.Random) -> tuple[int, int]:
    return rng.randint(0, MAX_OPERAND), rng.randint(0, MAX_OPERAND)
