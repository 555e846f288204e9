"""A tiny model that ends every chat with a random digit in a box, so that maths rewards of its answers vary."""

import json

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM


def save(folder, steps=60, system=None, question="{}", **shape):
    """Train the model for a few seconds and save it with its tokenizer.

    Args:
        steps: Optimiser steps of the training.
        system: System message of the chats; None for none.
        question: Text of the questions, around some digits.
        shape: Changes of its configuration.
    """
    from gbpo.run.models.tiny import character_tokenizer, tiny_decoder

    tokenizer = character_tokenizer()
    model = tiny_decoder(tokenizer)
    if shape:
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(Qwen2Config(**{**model.config.to_dict(), **shape}))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rng = torch.Generator().manual_seed(0)
    for _ in range(steps):
        chats = []
        for _ in range(16):
            digits = torch.randint(0, 10, (8,), generator=rng).tolist()
            asked = question.format("".join(map(str, digits[: 2 + digits[0] % 6])))
            messages = [{"role": "user", "content": asked}]
            if system is not None:
                messages.insert(0, {"role": "system", "content": system})
            prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            chats.append(f"{prompt}\\boxed{{{digits[-1]}}}{tokenizer.eos_token}")
        batch = tokenizer(chats, padding=True, return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def save_problems(path, count=40):
    """A JSONL file like maths data sets: `problem`, `answer`, and an unused column."""
    rows = [{"problem": f"What is {i} mod 3?", "answer": str(i % 3), "source": "made"} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)
