"""Generate completions of a checkpoint with transformers or vLLM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import GenerationConfig

from .batches import batches
from .checkpoint import Checkpoint, memory_released
from .completion import Completion, without_tools
from .prompt import Generate, Prompt, model_inputs
from .settings import Settings

Ids = tuple[list[list[int]], list[list[int]]]  # token ids: sampled, greedy
Completions = tuple[list[Completion], list[Completion]]  # sampled, greedy


def completions(checkpoint: Checkpoint, prompts: Sequence[Prompt], settings: Settings) -> Completions:
    """As `complete`, with the messages of each completion. With tools, completions call them."""
    if not settings.run.tools:
        sampled, greedy = complete(checkpoint, prompts, settings)
        return without_tools(sampled, checkpoint.tokenizer), without_tools(greedy, checkpoint.tokenizer)
    from .tool_turns import ToolTurns  # loads TRL

    with memory_released():
        return with_transformers(
            checkpoint,
            prompts,
            settings,
            lambda rows, generate: ToolTurns(checkpoint, settings, generate).complete([row.ids for row in rows]),
        )


def complete(checkpoint: Checkpoint, prompts: Sequence[Prompt], settings: Settings) -> Ids:
    """Sample `settings.samples` completions of each prompt, and decode another completion greedily.

    Of the model's own generation_config, only the end tokens are used.

    Args:
        checkpoint: The model.
        prompts: The prompts.
        settings: The sampling.

    Returns:
        Token ids of the sampled completions and of the greedy completions, including the end token. Sampled completions
        of the same prompt follow each other.
    """
    engine = _with_vllm if settings.engine == "vllm" else with_transformers
    with memory_released():
        return engine(checkpoint, prompts, settings)


def with_transformers(
    checkpoint: Checkpoint,
    prompts: Sequence[Any],
    settings: Settings,
    complete_rows: Callable[[Sequence[Any], Generate], Any] = lambda rows, generate: generate(rows),
) -> Any:
    """Complete prompts with transformers, as `complete`.

    Args:
        checkpoint: The model.
        prompts: The prompts, in the form that `complete_rows` reads.
        settings: The sampling.
        complete_rows: Makes a completion of each of its prompts with a function that continues token ids.

    Returns:
        What `complete_rows` returns for the sampled and for the greedy completions.
    """
    model = checkpoint.load()

    def generate(description: str, **sampler: Any) -> Generate:
        return lambda rows: _generate(model, checkpoint, rows, settings, description, **sampler)

    sampler = {"temperature": settings.temperature, "top_p": settings.top_p, "top_k": 0}
    rows = [prompt for prompt in prompts for _ in range(settings.samples)]
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        sampled = complete_rows(rows, generate("sampled", do_sample=True, **sampler))
    return sampled, complete_rows(prompts, generate("greedy", do_sample=False))


@torch.inference_mode()
def _generate(
    model: Any, checkpoint: Checkpoint, rows: Sequence[Prompt], settings: Settings, description: str, **sampler: Any
) -> list[list[int]]:
    ends = checkpoint.end_tokens
    pad_token = checkpoint.tokenizer.pad_token_id
    # replaces the model's own generation_config, which would fill in all options that are not given here
    model.generation_config = GenerationConfig(
        **sampler,
        max_new_tokens=settings.max_tokens,
        eos_token_id=ends or None,
        pad_token_id=ends[0] if pad_token is None and ends else pad_token,
        disable_compile=True,
    )
    completions: list[list[int]] = [[]] * len(rows)
    form = settings.prompts
    for batch in batches(sorted(range(len(rows)), key=lambda i: -len(rows[i].ids)), settings.batch_size, description):
        own = [rows[i] for i in batch]
        inputs = model_inputs(own, [[] for _ in own], "left", form, checkpoint, model.device)
        generated = model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
        for i, ids in zip(batch, generated.tolist(), strict=True):
            end = next((place + 1 for place, token in enumerate(ids) if token in ends), len(ids))
            completions[i] = ids[:end]
    return completions


def _with_vllm(checkpoint: Checkpoint, prompts: Sequence[Prompt], settings: Settings) -> Ids:
    from vllm import LLM, SamplingParams

    config = checkpoint.description.config
    common = {"max_tokens": settings.max_tokens, "stop_token_ids": checkpoint.end_tokens, "detokenize": False}
    samples = settings.samples
    sampler = {"n": samples, "temperature": settings.temperature, "top_p": settings.top_p, **common}
    # vLLM gives the n completions of a request the seeds seed, …, seed + n - 1, so the next request starts at seed + n
    seeds = [(settings.seed * len(prompts) + i) * samples for i in range(len(prompts))]
    requests = [{"prompt_token_ids": prompt.ids} for prompt in prompts]
    with checkpoint.merged() as folder:
        engine = LLM(
            model=folder,
            dtype=str(config.dtype or "auto").removeprefix("torch."),
            seed=settings.seed,
            max_model_len=max(len(prompt.ids) for prompt in prompts) + settings.max_tokens,
            generation_config="vllm",
        )
        sampled = engine.generate(requests, [SamplingParams(seed=seed, **sampler) for seed in seeds])
        greedy = engine.generate(requests, SamplingParams(temperature=0.0, **common))
    return _token_ids(sampled), _token_ids(greedy)


def _token_ids(answers: Sequence[Any]) -> list[list[int]]:
    return [list(output.token_ids) for answer in answers for output in answer.outputs]
