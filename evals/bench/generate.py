"""Tokens per second of the trainer's generation, with the methods of transformers and vLLM.

The model has random weights and the character tokenizer. Completions therefore end by chance and have skewed lengths.
The measured time is that of the trainer's `_generate`, from prompts to completions as tokens and text. The
methods are measured alternately, after one generation each as a warm-up. Prompt caches are empty, as after an update of
the weights.
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
from gbpo.trainer.passes.speedups import SPEEDUPS

from .measuring import BenchResult, Measurement, bench_result
from .timed import GROUP, Batch, Case, TimedGBPO, make_trainer, random_model

_PROMPT = 256  # tokens; vLLM caches whole blocks of 16 tokens on a GPU and of 128 on a CPU
_TRANSFORMERS: dict[str, dict[str, Any]] = {
    "transformers, padded batch": {},
    "transformers, padded batch, without share_prompts": {
        "exact_speedups": [name for name in SPEEDUPS if name != "share_prompts"]
    },
    "transformers, continuous batching": {"use_transformers_continuous_batching": True},
}
# On a CPU, the default cache of continuous batching fills all free memory and is cleared at each generation. This cache
# fits 64 completions of 512 tokens.
_CPU_CACHE = {"num_blocks": 128, "max_batch_tokens": 512}
_VLLM: dict[str, dict[str, Any]] = {  # name: sampling options
    "vLLM, prefix caching": {},
    "vLLM, without prefix caching": {"skip_reading_prefix_cache": True},
}


class _Counting(TimedGBPO):
    """Counts the tokens that it generates."""

    tokens = 0

    def _generate(self, prompts):
        generated = super()._generate(prompts)
        self.tokens += sum(map(len, generated[1]))
        return generated


def run(options: argparse.Namespace) -> BenchResult:
    """Measure each method that is available on this machine."""
    case = Case(completions=8, mean_length=4) if options.quick else Case()
    found: dict[str, list[float]] = {}
    notes = []
    with tempfile.TemporaryDirectory() as folder:
        random_model(vocab_size=len(character_tokenizer()), tie_word_embeddings=False).save_pretrained(folder)
        character_tokenizer().save_pretrained(folder)
        methods = _methods(case, folder, max_completion_length=8 if options.quick else 256)
        for name, generate in methods.items():
            try:
                generate()
            except (ImportError, NotImplementedError) as error:
                notes.append(f"{name}: not available here, {type(error).__name__}: {str(error).splitlines()[0]}")
            else:
                found[name] = []
        for _ in range(options.repeats):
            for name, values in found.items():
                values.append(methods[name]())
    if not _VLLM.keys() <= methods.keys():
        notes.append("vLLM was not measured, because it is not installed.")
    return bench_result([Measurement(name, values, "tokens/s") for name, values in found.items()], notes)


def _methods(case: Case, folder: str, **config: Any) -> dict[str, Callable[[], float]]:
    """The methods by name. A call generates once and returns the tokens per second. `folder` contains the model."""
    rng = random.Random(0)
    prompts = ["".join(rng.choices("0123456789", k=_PROMPT)) for _ in range(case.completions // GROUP)]
    if not torch.cuda.is_available():
        config["transformers_continuous_batching_config"] = _CPU_CACHE

    def trainer(**own: Any) -> Any:
        return make_trainer(_Counting, folder, Batch(case), f"{folder}/run", prompts=prompts, **config, **own)

    methods: dict[str, Callable[[], float]] = {
        name: partial(_tokens_per_second, trainer(**own)) for name, own in _TRANSFORMERS.items()
    }
    if find_spec("vllm"):
        length = _PROMPT + config["max_completion_length"]
        engine = trainer(
            use_vllm=True, vllm_mode="colocate", vllm_gpu_memory_utilization=0.3, vllm_max_model_length=length
        )
        engine._last_loaded_step = 0  # the engine already has these weights, which never change
        methods |= {name: partial(_vllm_tokens_per_second, engine, sampling) for name, sampling in _VLLM.items()}
    return methods


def _tokens_per_second(trainer: Any) -> float:
    trainer.seconds.clear()
    before = trainer.tokens
    trainer.train()
    return (trainer.tokens - before) / trainer.seconds["generate"]


def _vllm_tokens_per_second(trainer: Any, sampling: dict[str, Any]) -> float:
    trainer.vllm_generation.llm.reset_prefix_cache()
    trainer.vllm_generation.generation_kwargs = sampling
    return _tokens_per_second(trainer)
