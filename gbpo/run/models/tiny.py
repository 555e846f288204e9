"""The builtin models: tiny decoders, trained on noisy demonstrations of additions, one-line programs or words.

They need neither the Hub nor a GPU. After one or two minutes of training on one core, the policy knows the answer
format and samples correct answers some of the time. Reinforcement learning needs such a policy to start from.
"""

import itertools
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from ..data import arithmetic, programs
from ..data.loading import load
from ..recipe.arguments import RunArguments

Batch = dict[str, torch.Tensor]

MAX_OPERAND = 49
START_REWARD = 0.22  # the warm start stops at this probability of the correct answer

_WARMUP_STEPS, _CHECK_EVERY, _MAX_STEPS = 100, 10, 6000

_SPELL = "Spell this word backward (example: sun -> nus):"  # the text around the words of spell_backward

_PAD, _END, _UNKNOWN = "<|pad|>", "<|end|>", "<|unknown|>"
_SPECIAL = [_PAD, _END, _UNKNOWN, "<|system|>", "<|user|>", "<|assistant|>"]
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def character_tokenizer(text: str = "") -> Qwen2Tokenizer:
    """A tokenizer with one token per printable ASCII character and per word of `text`, and a chat template.

    Other characters are dropped. The class is Qwen2's, because `AutoTokenizer` loads that class for every Qwen2 model.
    Words are merged from their start: a word that is not in `text` is split after the longest start it shares with one.
    """
    characters = [bytes_to_unicode()[ord(character)] for character in string.printable]
    tokens, merges = [*_SPECIAL, *characters], []
    for word in _words(text):
        for length in range(1, len(word)):
            if word[: length + 1] not in tokens:
                tokens.append(word[: length + 1])
                merges.append((word[:length], word[length]))
    tokenizer = Qwen2Tokenizer(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=merges,
        pad_token=_PAD,
        eos_token=_END,
        unk_token=_UNKNOWN,
        extra_special_tokens=_SPECIAL[3:],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = _CHAT_TEMPLATE
    return tokenizer


def _words(text: str) -> list[str]:
    """The pieces into which Qwen2 splits a text before it merges characters."""
    if not text:
        return []
    cuts = character_tokenizer().backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
    return [word for word, _ in cuts]


def tiny_decoder(tokenizer: Qwen2Tokenizer, seed: int = 0, width: int = 64, layers: int = 2) -> Qwen2ForCausalLM:
    """A Qwen2 with random weights for this tokenizer, by default with about 0.1 M parameters."""
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )


def build_math(directory: Path) -> None:
    """Train the starting model of the demo, which adds two numbers, and save it to `directory`."""
    pairs = list(itertools.product(range(MAX_OPERAND + 1), repeat=2))
    answers = [str(answer) for answer in range(2 * MAX_OPERAND + 1)]
    demonstrations = _Demonstrations([arithmetic.question(*pair) for pair in pairs], answers, [sum(p) for p in pairs])
    _build(directory, demonstrations, right_fraction=0.35, batch=256, learning_rate=2e-3)


def build_code(directory: Path) -> None:
    """Train a starting model that writes one-line programs, and save it to `directory`."""
    pairs = list(itertools.product(programs.FACTORS, programs.SUMMANDS))
    answers = [f"```python\n{programs.program(*pair)}```" for pair in pairs]
    demonstrations = _Demonstrations([programs.question(*pair) for pair in pairs], answers, range(len(pairs)))
    _build(directory, demonstrations, right_fraction=0.8, batch=64, learning_rate=4e-3)


def build_words(directory: Path) -> None:
    """Train a starting model for the reasoning-gym task `spell_backward`, and save it to `directory`."""
    words = {"size": 8192, "seed": 0, "min_word_len": 3, "max_word_len": 5}
    run = RunArguments(dataset_name="reasoning_gym:spell_backward", dataset_kwargs=words)
    problems, _ = load(run, evaluation=False)
    backward = dict(zip(problems["prompt"], problems["solution"], strict=True))
    demonstrations = _Demonstrations([*backward], [*backward.values()], range(len(backward)), _SPELL)
    _build(directory, demonstrations, right_fraction=0.5, batch=128, learning_rate=3e-3)


def _build(
    directory: Path, demonstrations: "_Demonstrations", *, right_fraction: float, batch: int, learning_rate: float
) -> None:
    """Train on demonstrations, a fraction `right_fraction` of them correct, and save model and tokenizer."""
    model = tiny_decoder(demonstrations.tokenizer)
    held_out = demonstrations.sample(1024, right_fraction=1.0)
    train_until_right(model, lambda: demonstrations.sample(batch, right_fraction), held_out, learning_rate)
    model.save_pretrained(directory)
    demonstrations.tokenizer.save_pretrained(directory)


def train_until_right(
    model: Any,
    sample: Callable[[], Batch],
    held_out: Batch,
    learning_rate: float,
    probability: float = START_REWARD,
) -> None:
    """Train a model on demonstrations until it gives right answers often enough.

    Args:
        model: The model, with random weights.
        sample: Draws the demonstrations of a training step: the arguments of the model, with labels.
        held_out: Right demonstrations, in the same form.
        learning_rate: Learning rate of AdamW.
        probability: The training ends when the model samples all tokens that have labels in a row of `held_out` with
            this mean probability.

    Raises:
        RuntimeError: The model did not become good enough.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / _WARMUP_STEPS))
    for step in range(_MAX_STEPS):
        model(**sample()).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % _CHECK_EVERY == 0 and _probability(model, held_out) >= probability:
            return
    raise RuntimeError(f"The warm start did not reach the probability {probability} in {_MAX_STEPS} steps.")


@torch.no_grad()
def _probability(model: Any, demonstrations: Batch) -> float:
    """Mean probability that the model samples the complete answer of a demonstration."""
    inputs = dict(demonstrations)
    labels = inputs.pop("labels")[:, 1:]
    logps = model(**inputs).logits[:, :-1].log_softmax(-1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return logps.masked_fill(labels == -100, 0.0).sum(-1).exp().mean().item()


class _Demonstrations:
    """Questions and answers, tokenized once. Prompts are padded on the left, answers on the right.

    Args:
        questions: The questions.
        answers: The different answers.
        right: For each question, the index of its correct answer.
        words: Text whose words get tokens of their own.
    """

    def __init__(self, questions: Sequence[str], answers: Sequence[str], right: Sequence[int], words: str = ""):
        self.tokenizer = tokenizer = character_tokenizer(words)
        chats = [[{"role": "user", "content": question}] for question in questions]
        prompts = tokenizer.apply_chat_template(chats, add_generation_prompt=True, tokenize=False)
        endings = [answer + tokenizer.eos_token for answer in answers]
        self._prompts = tokenizer(prompts, padding=True, return_tensors="pt")["input_ids"]
        self._answers = tokenizer(endings, padding=True, padding_side="right", return_tensors="pt")["input_ids"]
        self._right = torch.tensor(right)
        self._pad = tokenizer.pad_token_id
        self._rng = torch.Generator().manual_seed(0)

    def sample(self, size: int, right_fraction: float) -> Batch:
        """`size` chats. Only the tokens of the answer have labels. An incorrect demonstration has a random answer."""
        problems = torch.randint(len(self._right), (size,), generator=self._rng)
        right = torch.rand(size, generator=self._rng) < right_fraction
        guesses = torch.randint(len(self._answers), (size,), generator=self._rng)
        answers = self._answers[torch.where(right, self._right[problems], guesses)]
        prompts = self._prompts[problems]
        ids = torch.cat([prompts, answers], dim=1)
        labels = torch.cat([torch.full_like(prompts, -100), answers.masked_fill(answers == self._pad, -100)], dim=1)
        return {"input_ids": ids, "attention_mask": (ids != self._pad).long(), "labels": labels}
