"""A tiny model that acts in the environment of the demo, in several turns and at random."""

import random

import torch


def save(folder):
    """Train the model for a few seconds on episodes of `code_word`, and save it with its tokenizer."""
    from gbpo.run.models.agent import episode, tokenizer
    from gbpo.run.models.tiny import tiny_decoder
    from gbpo.run.models.tool_chat import _batch, _encoded

    tokens, rng = tokenizer(), random.Random(0)
    examples = [_encoded(tokens, episode(seed, seed % 3, rng, guesses=seed % 3 < 2)) for seed in range(96)]
    model = tiny_decoder(tokens)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        model(**_batch(tokens, rng.sample(examples, 16))).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    return str(folder)
