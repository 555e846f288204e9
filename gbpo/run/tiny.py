"""The embedded model of the demo: a tiny decoder that has seen noisy demonstrations of additions.

It needs no Hub and no GPU: about a minute on one core gives a policy that knows the answer format and samples the right
sum some of the time, which is what reinforcement learning needs to start from.
"""

import string
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from .arithmetic import question

MAX_OPERAND = 49
RIGHT_FRACTION = 0.35  # of the demonstrations; the others give any number between 0 and the largest sum
START_REWARD = 0.22  # probability of the right answer at which the warm start stops

_BATCH, _LEARNING_RATE, _WARMUP_STEPS = 256, 2e-3, 100
_CHECK_EVERY, _MAX_STEPS = 50, 6000

_PAD, _END, _UNKNOWN = "<|pad|>", "<|end|>", "<|unknown|>"
_SPECIAL = [_PAD, _END, _UNKNOWN, "<|system|>", "<|user|>", "<|assistant|>"]
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def character_tokenizer() -> PreTrainedTokenizerFast:
    """One token per printable ASCII character, with a chat template; anything else is `<|unknown|>`."""
    vocabulary = {token: i for i, token in enumerate([*_SPECIAL, *string.printable])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_PAD,
        eos_token=_END,
        unk_token=_UNKNOWN,
        extra_special_tokens=_SPECIAL[3:],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = _CHAT_TEMPLATE
    return fast


def tiny_decoder(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> Qwen2ForCausalLM:
    """A random Qwen2 of about 0.1 M parameters for this tokenizer."""
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )


def build(directory: Path) -> None:
    """Train the demo's starting model and write it, with its tokenizer, into `directory`."""
    tokenizer = character_tokenizer()
    model = tiny_decoder(tokenizer)
    demonstrations = _Demonstrations(tokenizer)
    held_out = demonstrations.sample(1024, right_fraction=1.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / _WARMUP_STEPS))
    for step in range(_MAX_STEPS):
        model(**demonstrations.sample(_BATCH, RIGHT_FRACTION)).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % _CHECK_EVERY == 0 and _probability(model, held_out) >= START_REWARD:
            break
    else:
        raise RuntimeError(f"The warm start did not reach reward {START_REWARD} in {_MAX_STEPS} steps.")
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


class _Demonstrations:
    """Additions with an answer, tokenized once: every prompt padded on the left, every answer on the right."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        operands = range(MAX_OPERAND + 1)
        chats = [[{"role": "user", "content": question(a, b)}] for a in operands for b in operands]
        prompts = tokenizer.apply_chat_template(chats, add_generation_prompt=True, tokenize=False)
        answers = [f"{answer}{tokenizer.eos_token}" for answer in range(2 * MAX_OPERAND + 1)]
        self._prompts = tokenizer(prompts, padding=True, return_tensors="pt")["input_ids"]
        self._answers = tokenizer(answers, padding=True, padding_side="right", return_tensors="pt")["input_ids"]
        self._sums = torch.tensor([a + b for a in operands for b in operands])
        self._pad = tokenizer.pad_token_id
        self._rng = torch.Generator().manual_seed(0)

    def sample(self, size: int, right_fraction: float) -> dict[str, torch.Tensor]:
        """`size` chats, labelled on the answer alone."""
        problems = torch.randint(len(self._sums), (size,), generator=self._rng)
        right = torch.rand(size, generator=self._rng) < right_fraction
        guesses = torch.randint(len(self._answers), (size,), generator=self._rng)
        answers = self._answers[torch.where(right, self._sums[problems], guesses)]
        prompts = self._prompts[problems]
        ids = torch.cat([prompts, answers], dim=1)
        labels = torch.cat([torch.full_like(prompts, -100), answers.masked_fill(answers == self._pad, -100)], dim=1)
        return {"input_ids": ids, "attention_mask": (ids != self._pad).long(), "labels": labels}


@torch.no_grad()
def _probability(model: Qwen2ForCausalLM, demonstrations: dict[str, torch.Tensor]) -> float:
    """Mean probability that the model samples the whole answer that each demonstration gives."""
    labels = demonstrations["labels"][:, 1:]
    logits = model(demonstrations["input_ids"], attention_mask=demonstrations["attention_mask"]).logits[:, :-1]
    logps = logits.log_softmax(-1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return logps.masked_fill(labels == -100, 0.0).sum(-1).exp().mean().item()
