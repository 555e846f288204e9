"""The builtin model `tiny_chain`: a decoder of 1.1 M parameters that counts on in steps and makes some errors."""

import random
from pathlib import Path

import torch
from transformers import Qwen2Tokenizer

from ..data import chains
from .tiny import Batch, character_tokenizer, tiny_decoder, train_until_right

_DEMONSTRATIONS = 65536
_WRONG_FRACTION = 0.04  # of the totals of the demonstrations


def build(directory: Path) -> None:
    """Train the starting model of the task `chains`, and save it to `directory`."""
    text, rng = tokenizer(), random.Random(0)
    demonstrations = _encoded(text, [_demonstration(rng, _WRONG_FRACTION) for _ in range(_DEMONSTRATIONS)])
    held_out = _encoded(text, [_demonstration(rng, 0.0) for _ in range(128)])
    draw = torch.Generator().manual_seed(0)

    def sample() -> Batch:
        chosen = torch.randint(_DEMONSTRATIONS, (64,), generator=draw)
        return {name: values[chosen] for name, values in demonstrations.items()}

    model = tiny_decoder(text, width=128, layers=5)
    train_until_right(model, sample, held_out, learning_rate=2e-3)
    model.save_pretrained(directory)
    text.save_pretrained(directory)


def tokenizer() -> Qwen2Tokenizer:
    r"""The tokenizer, with a token for each number, for each step and for `\boxed{`."""
    text = character_tokenizer()
    sizes = range(1, chains.LARGEST_STEP + 1)
    text.add_tokens(
        [
            "\\boxed{",
            *(f"{number:02d}" for number in range(chains.MODULUS)),
            *(f"{sign}{size:02d}" for sign in "+-" for size in sizes),
        ]
    )
    return text


def _demonstration(rng: random.Random, wrong_fraction: float) -> tuple[str, str]:
    """A prompt and an answer. A wrong total is random, and the next ones go on from it."""
    start, step = chains.start_and_step(rng)
    totals = [start]
    for _ in range(chains.LENGTH):
        wrong = rng.random() < wrong_fraction
        totals.append(rng.randrange(chains.MODULUS) if wrong else (totals[-1] + step) % chains.MODULUS)
    return chains.question(start, step), chains.answer(step, totals)


def _encoded(text: Qwen2Tokenizer, demonstrations: list[tuple[str, str]]) -> Batch:
    """Prompts and answers of equal lengths. Only the tokens of the answers have labels."""
    chats = [[{"role": "user", "content": question}] for question, _ in demonstrations]
    prompts = text.apply_chat_template(chats, add_generation_prompt=True, tokenize=False)
    starts = text(prompts, return_tensors="pt")["input_ids"]
    answers = text([answer + text.eos_token for _, answer in demonstrations], return_tensors="pt")["input_ids"]
    ids = torch.cat([starts, answers], dim=1)
    labels = torch.cat([torch.full_like(starts, -100), answers], dim=1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
