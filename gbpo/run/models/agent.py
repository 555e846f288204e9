"""The builtin model `tiny_agent`: a tiny decoder that sometimes asks the environment `code_word` before it answers."""

import random
from pathlib import Path

from transformers import Qwen2Tokenizer

from ..environments.code_word import LENGTH, LETTERS, TASK, CodeWord
from .tool_chat import Messages, call_message, tool_tokenizer, warm_start

_EPISODES = 8192
_RIGHT_FRACTION = 0.35  # of the demonstrations; all others end with a guess, after any number of questions


def build(directory: Path) -> None:
    """Train the starting model of the environment's demo, and save it to `directory`."""
    rng = random.Random(0)
    right = [episode(seed, LENGTH, rng, guesses=False) for seed in range(512)]
    demonstrations = [
        episode(seed, LENGTH, rng, guesses=False)
        if rng.random() < _RIGHT_FRACTION
        else episode(seed, rng.randint(0, LENGTH), rng, guesses=True)
        for seed in range(_EPISODES)
    ]
    warm_start(directory, tokenizer(), demonstrations, right)


def tokenizer() -> Qwen2Tokenizer:
    """The tokenizer, with tokens for the words of the calls and of the environment."""
    return tool_tokenizer(f'{TASK} ask{{}} answer{{"code":" right wrong no more')


def episode(seed: int, questions: int, rng: random.Random, *, guesses: bool) -> Messages:
    """A conversation with the environment: some questions, an answer, and a last message of the assistant.

    Args:
        seed: Seed of the code.
        questions: Number of questions.
        rng: The source of guesses.
        guesses: Whether the answer is a random code, or the letters that the environment has shown.
    """
    environment = CodeWord()
    messages: Messages = [{"role": "user", "content": environment.reset(seed)}]
    letters = [environment.ask() for _ in range(questions)]
    for letter in letters:
        messages += [call_message("ask"), {"role": "tool", "name": "ask", "content": letter}]
    code = "".join(rng.choice(LETTERS) for _ in range(LENGTH)) if guesses else "".join(letters)
    verdict = environment.answer(code)
    messages += [call_message("answer", code=code), {"role": "tool", "name": "answer", "content": verdict}]
    return [*messages, {"role": "assistant", "content": verdict}]
