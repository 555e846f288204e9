"""Tokens a second through the trainer's own generation, by the ways that transformers offers.

A random model over the character tokenizer ends a completion by chance, so that lengths are skewed. Seconds are those
of the trainer's `_generate`: prompts in, completions as tokens and text out. The ways take turns, after one generation
each to warm up.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from importlib.util import find_spec
from typing import Any

import torch

from gbpo.run.tiny import character_tokenizer

from .measuring import Findings, Measurement, findings
from .timed import Batch, Case, TimedGBPO, make_trainer, random_model

_WAYS: dict[str, dict[str, Any]] = {
    "transformers, padded batch": {},
    "transformers, continuous batching": {"use_transformers_continuous_batching": True},
}
# Without a GPU, transformers takes the cache of continuous batching from all free memory, and clears it at each
# generation. This holds 64 completions of 512 tokens.
_CPU_CACHE = {"num_blocks": 128, "max_batch_tokens": 512}


class _Counting(TimedGBPO):
    """Counts the tokens it generates."""

    tokens = 0

    def _generate(self, prompts):
        generated = super()._generate(prompts)
        self.tokens += sum(map(len, generated[1]))
        return generated


def run(options: argparse.Namespace) -> Findings:
    """Tokens per second of each way that this machine has."""
    case = Case(completions=8, mean_length=4) if options.quick else Case()
    model = random_model(vocab_size=len(character_tokenizer()))
    shared: dict[str, Any] = {"max_completion_length": 8 if options.quick else 256}
    if not torch.cuda.is_available():
        shared["transformers_continuous_batching_config"] = _CPU_CACHE
    found: dict[str, list[float]] = {}
    notes = []
    with tempfile.TemporaryDirectory() as folder:
        trainers = {}
        for name, way in _WAYS.items():
            trainer = make_trainer(_Counting, copy.deepcopy(model), Batch(case), folder, given=False, **shared, **way)
            try:
                _tokens_per_second(trainer)
            except (ImportError, NotImplementedError) as error:
                notes.append(f"{name}: not available here, {type(error).__name__}: {str(error).splitlines()[0]}")
            else:
                trainers[name], found[name] = trainer, []
        for _ in range(options.repeats):
            for name, trainer in trainers.items():
                found[name].append(_tokens_per_second(trainer))
    installed = "is installed, but this bench has no way for it" if find_spec("vllm") else "is not installed"
    notes.append(f"vLLM, prefix caching for the completions of a prompt: not measured, vLLM {installed}.")
    return findings([Measurement(name, values, "tokens/s") for name, values in found.items()], notes)


def _tokens_per_second(trainer: Any) -> float:
    trainer.seconds.clear()
    before = trainer.tokens
    trainer.train()
    return (trainer.tokens - before) / trainer.seconds["generate"]
