"""What a checkpoint says to prompts, through vLLM or transformers, and how far it is from another one."""

from __future__ import annotations

import gc
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from tqdm.auto import tqdm
from transformers import GenerationConfig

from gbpo.run.models import catalogue as models
from gbpo.run.models.description import Description, read

if TYPE_CHECKING:
    from .command import Settings

_ADAPTER = "adapter_config.json"
_LOGITS = 2**27  # that a batch of `divergence` may have, for each of the two models

transformers.utils.logging.disable_progress_bar()


@dataclass(frozen=True)
class Checkpoint:
    """A model whose weights are not loaded yet.

    Args:
        base: Folder or Hub id of the weights; of those below the adapter where there is one.
        adapter: Folder of the adapter, or None.
        tokenizer_folder: Folder or Hub id of the tokenizer: the adapter's, where it has one.
        description: Its configuration, class and tokenizer.
    """

    base: str
    adapter: str | None
    tokenizer_folder: str
    description: Description

    @property
    def tokenizer(self) -> Any:
        return self.description.tokenizer

    @cached_property
    def stops(self) -> list[int]:
        """The tokens that end a completion: those of the tokenizer and of the model, as in training."""
        try:
            ends = GenerationConfig.from_pretrained(self.base).eos_token_id
        except OSError:  # there is no generation_config.json
            ends = self.description.config.get_text_config().eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return sorted({end for end in (self.tokenizer.eos_token_id, *ends) if end is not None})


def find(name: str, chat_template_path: str | None = None) -> Checkpoint:
    """Read the configuration and the tokenizer of a model, without its weights.

    Args:
        name: A folder, a folder of an adapter, a Hub id or a builtin model.
        chat_template_path: File with a chat template to use in place of the tokenizer's.

    Raises:
        ValueError: There is no such model, or it does not generate text.
    """
    folder = Path(name).expanduser()
    adapter = folder if (folder / _ADAPTER).is_file() else None
    if adapter is None:
        models.check_model_name(name)
        base = models.local_model(name)
    else:
        base = json.loads((adapter / _ADAPTER).read_text())["base_model_name_or_path"]
    has_tokenizer = adapter is not None and (adapter / "tokenizer_config.json").is_file()
    tokenizer_folder = str(adapter) if has_tokenizer else base
    description = read(base, tokenizer_folder, chat_template_path)
    return Checkpoint(base, None if adapter is None else str(adapter), tokenizer_folder, description)


def complete(
    checkpoint: Checkpoint, prompts: Sequence[list[int]], settings: Settings
) -> tuple[list[list[int]], list[list[int]]]:
    """Sample `settings.samples` completions of each prompt, and one greedily.

    The model's own generation_config has no say, but for its end tokens.

    Args:
        checkpoint: The model.
        prompts: Tokens, by question.
        settings: How to sample.

    Returns:
        The sampled completions, those of a question in a row, and the greedy ones. The end token is part of them.
    """
    engine = _with_vllm if settings.engine == "vllm" else _with_transformers
    try:
        return engine(checkpoint, prompts, settings)
    finally:
        _release()


@torch.inference_mode()
def divergence(
    policy: Checkpoint,
    reference: Checkpoint,
    prompts: Sequence[list[int]],
    completions: Sequence[list[int]],
    batch_size: int,
) -> float:
    r"""How far a model is from another along given completions y, in nats per completion.

    mean over y of Σ_t KL(π(· | x, y_<t) ‖ π_ref(· | x, y_<t)), both at temperature 1 and over the whole vocabulary.

    With completions that were sampled from π at temperature 1 and top_p 1, the expectation is exactly the KL divergence
    of the distributions of completions, by the chain rule, and the noise is less than that of log π(y) − log π_ref(y).
    With others it is the same sum along the prefixes that this sampling visits.

    Args:
        policy, reference: π and π_ref, which share a tokenizer.
        prompts, completions: Tokens x and y, of one length.
        batch_size: Most completions at a time.
    """
    try:
        return _divergence(policy, reference, prompts, completions, batch_size)
    finally:
        _release()


def _divergence(
    policy: Checkpoint,
    reference: Checkpoint,
    prompts: Sequence[list[int]],
    completions: Sequence[list[int]],
    batch_size: int,
) -> float:
    pair = _load(policy), _load(reference)
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]) - len(completions[i]))
    longest = len(prompts[order[0]]) + len(completions[order[0]])
    vocabulary = policy.description.config.get_text_config().vocab_size
    size = max(1, min(batch_size, _LOGITS // (longest * vocabulary)))
    total = 0.0
    for places in _batches(order, size, "divergence"):
        tokens, mask = _padded([prompts[i] + completions[i] for i in places], "right", pair[0].device)
        log_pi, log_ref = (
            model(input_ids=tokens, attention_mask=mask).logits.float().log_softmax(-1) for model in pair
        )
        kl = torch.nn.functional.kl_div(log_ref, log_pi, reduction="none", log_target=True).sum(-1)  # batch × place
        for row, i in enumerate(places):  # the first token of y is predicted at the last place of x
            start = len(prompts[i]) - 1
            total += kl[row, start : start + len(completions[i])].sum().item()
    return total / len(prompts)


def _with_transformers(
    checkpoint: Checkpoint, prompts: Sequence[list[int]], settings: Settings
) -> tuple[list[list[int]], list[list[int]]]:
    model = _load(checkpoint)
    sampler = {"temperature": settings.temperature, "top_p": settings.top_p, "top_k": 0}
    rows = [prompt for prompt in prompts for _ in range(settings.samples)]
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        sampled = _generate(model, checkpoint, rows, settings, "sampled", do_sample=True, **sampler)
    return sampled, _generate(model, checkpoint, prompts, settings, "greedy", do_sample=False)


@torch.inference_mode()
def _generate(
    model: Any, checkpoint: Checkpoint, rows: Sequence[list[int]], settings: Settings, what: str, **sampler: Any
) -> list[list[int]]:
    stops = checkpoint.stops
    pad = checkpoint.tokenizer.pad_token_id
    # in place of the model's own, which would fill in whatever is not said here
    model.generation_config = GenerationConfig(
        **sampler,
        max_new_tokens=settings.max_tokens,
        eos_token_id=stops or None,
        pad_token_id=stops[0] if pad is None and stops else pad,
        disable_compile=True,
    )
    completions: list[list[int]] = [[]] * len(rows)
    for places in _batches(sorted(range(len(rows)), key=lambda i: -len(rows[i])), settings.batch_size, what):
        tokens, mask = _padded([rows[i] for i in places], "left", model.device)
        generated = model.generate(input_ids=tokens, attention_mask=mask)[:, tokens.shape[1] :]
        for i, ids in zip(places, generated.tolist(), strict=True):
            end = next((place + 1 for place, token in enumerate(ids) if token in stops), len(ids))
            completions[i] = ids[:end]
    return completions


def _with_vllm(
    checkpoint: Checkpoint, prompts: Sequence[list[int]], settings: Settings
) -> tuple[list[list[int]], list[list[int]]]:
    from vllm import LLM, SamplingParams

    config = checkpoint.description.config
    common = {"max_tokens": settings.max_tokens, "stop_token_ids": checkpoint.stops, "detokenize": False}
    samples = settings.samples
    sampler = {"n": samples, "temperature": settings.temperature, "top_p": settings.top_p, **common}
    # the n completions of a request have the seeds that follow its own
    seeds = [(settings.seed * len(prompts) + i) * samples for i in range(len(prompts))]
    requests = [{"prompt_token_ids": ids} for ids in prompts]
    with _whole(checkpoint) as folder:
        engine = LLM(
            model=folder,
            dtype=str(config.dtype or "auto").removeprefix("torch."),
            seed=settings.seed,
            max_model_len=max(map(len, prompts)) + settings.max_tokens,
            generation_config="vllm",
        )
        sampled = engine.generate(requests, [SamplingParams(seed=seed, **sampler) for seed in seeds])
        greedy = engine.generate(requests, SamplingParams(temperature=0.0, **common))
    return _outputs(sampled), _outputs(greedy)


def _outputs(answers: Sequence[Any]) -> list[list[int]]:
    return [list(one.token_ids) for answer in answers for one in answer.outputs]


@contextmanager
def _whole(checkpoint: Checkpoint) -> Iterator[str]:
    """A folder or Hub id of the model with its adapter merged."""
    if checkpoint.adapter is None:
        yield checkpoint.base
        return
    from peft import AutoPeftModelForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        model = AutoPeftModelForCausalLM.from_pretrained(checkpoint.adapter, dtype="auto")
        model.merge_and_unload().save_pretrained(folder)
        checkpoint.tokenizer.save_pretrained(folder)
        yield folder


def _load(checkpoint: Checkpoint) -> Any:
    """The model on the accelerator, where there is one, in the type its weights were saved in."""
    if checkpoint.adapter is None:
        model = checkpoint.description.architecture.from_pretrained(checkpoint.base, dtype="auto")
    else:
        from peft import AutoPeftModelForCausalLM

        model = AutoPeftModelForCausalLM.from_pretrained(checkpoint.adapter, dtype="auto")
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    return model.to(device).eval()


def _release() -> None:
    """Give back the memory of models that nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _batches(order: Sequence[int], size: int, what: str) -> Iterator[list[int]]:
    """The places in batches, under a progress bar."""
    with tqdm(total=len(order), desc=what, unit="completion", leave=False, disable=None) as bar:
        for start in range(0, len(order), size):
            places = list(order[start : start + size])
            yield places
            bar.update(len(places))


def _padded(rows: Sequence[list[int]], side: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and attention mask, rows × longest row; what is masked is token 0."""
    tokens = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, 0, side)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], True, 0, side)
    return tokens.to(device), mask.to(device)
