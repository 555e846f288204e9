"""A model that answers `\\boxed{digit}`, problems whose answers are digits, and the launch command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def boxing_model(tmp_path_factory):
    """Folder of a tiny decoder that ends every chat with a random digit in a box, so that maths rewards vary."""
    from gbpo.run.models.tiny import character_tokenizer, tiny_decoder

    tokenizer = character_tokenizer()
    model = tiny_decoder(tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rng = torch.Generator().manual_seed(0)
    for _ in range(60):
        chats = []
        for _ in range(16):
            digits = torch.randint(0, 10, (8,), generator=rng).tolist()
            question = "".join(map(str, digits[: 2 + digits[0] % 6]))
            prompt = tokenizer.apply_chat_template(
                [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
            )
            chats.append(f"{prompt}\\boxed{{{digits[-1]}}}{tokenizer.eos_token}")
        batch = tokenizer(chats, padding=True, return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("boxing_model")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def problems(tmp_path_factory):
    """A JSONL file like maths data sets: `problem`, `answer`, and an unused column."""
    path = tmp_path_factory.mktemp("data") / "problems.jsonl"
    rows = [{"problem": f"What is {i} mod 3?", "answer": str(i % 3), "source": "made"} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def launch(tmp_path):
    """`launch(recipe, *flags)` runs launch/gbpo.py from another directory; `launcher` puts words before it."""

    def run(recipe, *flags, launcher=(sys.executable,), cwd=tmp_path, timeout=300):
        command = [*launcher, str(ROOT / "launch" / "gbpo.py"), str(recipe), *map(str, flags)]
        # a new user has no PYTHONPATH
        env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout, check=False)

    return run
