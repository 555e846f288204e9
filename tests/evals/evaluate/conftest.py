"""Tiny models to evaluate."""

import pytest
import torch

from gbpo.run.models.tiny import character_tokenizer, tiny_decoder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Folder of a tiny decoder that answers with a random digit or nothing, and then stops."""
    return str(digit_model(tmp_path_factory.mktemp("digits"), seed=0))


@pytest.fixture(scope="module")
def other_model(tmp_path_factory):
    """Folder of another such decoder."""
    return str(digit_model(tmp_path_factory.mktemp("others"), seed=1))


def digit_model(folder, seed):
    tokenizer = character_tokenizer()
    model = tiny_decoder(tokenizer, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rng = torch.Generator().manual_seed(seed)
    for _ in range(40):
        digits = torch.randint(0, 10, (32, 3), generator=rng).tolist()
        chats = [f"<|user|>{a}+{b}=<|end|><|assistant|>{c or ''}<|end|>" for a, b, c in digits]
        batch = tokenizer(chats, padding=True, return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
