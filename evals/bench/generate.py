"""Tokens a second through the trainer's own generation, by the ways that transformers and vLLM offer.

A random model over the character tokenizer ends a completion by chance, so that lengths are skewed. Seconds are those
of the trainer's `_generate`: prompts in, completions as tokens and text out. The ways take turns, after one generation
each to warm up. No way finds a prompt of an earlier generation in its cache, as after an update of the weights.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch

from gbpo.run.models.tiny import character_tokenizer

from .measuring import BenchResult, Measurement, bench_result
from .timed import GROUP, Batch, Case, TimedGBPO, make_trainer, random_model

_PROMPT = 256  # tokens; vLLM's cache holds whole blocks of 16 on a GPU, of 128 on a CPU
_TRANSFORMERS: dict[str, dict[str, Any]] = {
    "transformers, padded batch": {},
    "transformers, padded batch, share_prompts false": {"share_prompts": False},
    "transformers, continuous batching": {"use_transformers_continuous_batching": True},
}
# Without a GPU, transformers takes the cache of continuous batching from all free memory, and clears it at each
# generation. This holds 64 completions of 512 tokens.
_CPU_CACHE = {"num_blocks": 128, "max_batch_tokens": 512}
_VLLM: dict[str, dict[str, Any]] = {  # options of its sampling
    "vLLM, prefix caching": {},
    "vLLM, every prompt for every completion": {"skip_reading_prefix_cache": True},
}


class _Counting(TimedGBPO):
    """Counts the tokens it generates."""

    tokens = 0

    def _generate(self, prompts):
        generated = super()._generate(prompts)
        self.tokens += sum(map(len, generated[1]))
        return generated


def run(options: argparse.Namespace) -> BenchResult:
    """Tokens per second of each way that this machine has."""
    case = Case(completions=8, mean_length=4) if options.quick else Case()
    found: dict[str, list[float]] = {}
    notes = []
    with tempfile.TemporaryDirectory() as folder:
        random_model(vocab_size=len(character_tokenizer()), tie_word_embeddings=False).save_pretrained(folder)
        character_tokenizer().save_pretrained(folder)
        ways = _ways(case, folder, max_completion_length=8 if options.quick else 256)
        for name, generate in ways.items():
            try:
                generate()
            except (ImportError, NotImplementedError) as error:
                notes.append(f"{name}: not available here, {type(error).__name__}: {str(error).splitlines()[0]}")
            else:
                found[name] = []
        for _ in range(options.repeats):
            for name, values in found.items():
                values.append(ways[name]())
    if not _VLLM.keys() <= ways.keys():
        notes.append("vLLM: not measured, it is not installed.")
    return bench_result([Measurement(name, values, "tokens/s") for name, values in found.items()], notes)


def _ways(case: Case, folder: str, **config: Any) -> dict[str, Callable[[], float]]:
    """Each way by its name: a call generates once and returns tokens a second. `folder` holds the model."""
    rng = random.Random(0)
    prompts = ["".join(rng.choices("0123456789", k=_PROMPT)) for _ in range(case.completions // GROUP)]
    if not torch.cuda.is_available():
        config["transformers_continuous_batching_config"] = _CPU_CACHE

    def trainer(**own: Any) -> Any:
        return make_trainer(_Counting, folder, Batch(case), f"{folder}/run", prompts=prompts, **config, **own)

    ways: dict[str, Callable[[], float]] = {
        name: partial(_tokens_per_second, trainer(**own)) for name, own in _TRANSFORMERS.items()
    }
    if find_spec("vllm"):
        length = _PROMPT + config["max_completion_length"]
        engine = trainer(
            use_vllm=True, vllm_mode="colocate", vllm_gpu_memory_utilization=0.3, vllm_max_model_length=length
        )
        engine._last_loaded_step = 0  # its engine has read the same weights, and they never change
        ways |= {name: partial(_vllm_tokens_per_second, engine, sampling) for name, sampling in _VLLM.items()}
    return ways


def _tokens_per_second(trainer: Any) -> float:
    trainer.seconds.clear()
    before = trainer.tokens
    trainer.train()
    return (trainer.tokens - before) / trainer.seconds["generate"]


def _vllm_tokens_per_second(trainer: Any, sampling: dict[str, Any]) -> float:
    trainer.vllm_generation.llm.reset_prefix_cache()
    trainer.vllm_generation.generation_kwargs = sampling
    return _tokens_per_second(trainer)
