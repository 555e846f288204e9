"""A tiny model that calls `add` with random digits and answers with a random digit, and the module of that tool."""

import torch

TOOL = '''
import os
import signal
import time
from pathlib import Path

LOG = Path(__file__).with_name("calls.txt")


def add(a: int, b: int) -> int:
    """
    Add two numbers.

    Args:
        a: The first.
        b: The second.
    """
    with LOG.open("a") as file:
        file.write(f"{a} {b}\\n")
    if a == 9:
        raise ArithmeticError("too hard")
    if (Path(__file__).parent / f"kill_at_{len(LOG.read_text().splitlines())}").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return a + b


def no_hints(a, b):
    """Add."""
    return a + b


def no_docstring(a: int) -> int:
    return a


class Search:
    """Search."""

    def __call__(self, query: str) -> str:
        """
        Search.

        Args:
            query: What for.
        """
        return query


search = Search()
number = 3
'''


def save(folder, steps=70):
    """Train the model for a few seconds and save it with its tokenizer.

    Two of three chats call the tool once or twice.
    """
    from gbpo.run.models.tiny import tiny_decoder
    from gbpo.run.models.tool_chat import _batch, _encoded, call_message, tool_tokenizer

    tokenizer = tool_tokenizer('add{"a":1,"b":1}')
    model = tiny_decoder(tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    rng = torch.Generator().manual_seed(0)
    for _ in range(steps):
        examples = []
        for _ in range(16):
            first, second, third, calls = torch.randint(0, 10, (4,), generator=rng).tolist()
            messages = [{"role": "user", "content": f"{first}+{second}="}]
            for _ in range(calls % 3):
                messages.append(call_message("add", a=second, b=third))
                messages.append({"role": "tool", "name": "add", "content": str(second + third)})
            messages.append({"role": "assistant", "content": str(third)})
            examples.append(_encoded(tokenizer, messages))
        model(**_batch(tokenizer, examples)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
