"""Estimates the memory of a rank, part by part, without loading weights.

The model is built from its configuration with tensors that have no storage. The sizes of parameters, gradients and
optimiser states are exact. The KV cache and the activations are measured by running the model on such tensors.
Memory that depends on kernels (LM head, attention, the allocator) is approximate.
"""

import contextlib
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

import torch
from accelerate.utils import str_to_bool
from peft import get_peft_model
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM
from transformers.integrations import deepspeed as integration
from trl import GRPOConfig, get_peft_config
from trl.kernels.chunked_logprob import TOKEN_CHUNK_SIZE
from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

from ...trainer.passes import capabilities as architecture
from ...trainer.passes.speedups import requested_speedups
from ..models.description import LOADING_OPTIONS, Description
from ..recipe.parsing import Recipe


@dataclass(frozen=True)
class Part:
    """One part of a rank's memory.

    Args:
        name: Name of the part.
        size: Bytes, or None if the size is unknown.
        note: Details, or why the size is unknown.
        phase: When the memory is used: `"always"`, `"generation"` or `"training"`.
        offloaded: Whether the part is in host memory instead of on the device.
    """

    name: str
    size: float | None
    note: str = ""
    phase: str = "always"
    offloaded: bool = False


@dataclass(frozen=True)
class Sharding:
    """The number of ranks over which weights, gradients and optimiser states are split, and what is offloaded."""

    name: str
    weights: int = 1
    gradients: int = 1
    optimizer: int = 1
    weights_offloaded: bool = False
    optimizer_offloaded: bool = False
    masters: bool = False  # DeepSpeed keeps a float32 copy of the weights with the optimiser states
    upcast: bool = False  # FSDP2 keeps trained weights in float32 under mixed precision

    @classmethod
    def of(cls, args: GRPOConfig) -> "Sharding":
        """The sharding that the launcher's environment or the recipe selects."""
        ranks = args.world_size
        if args.deepspeed_plugin is not None:
            config = args.deepspeed_plugin.deepspeed_config.get("zero_optimization", {})
            stage = int(config.get("stage", 0))
            weights_offloaded, optimizer_offloaded = (
                str((config.get(f"offload_{part}") or {}).get("device", "none")) != "none"
                for part in ("param", "optimizer")
            )
            return cls(
                f"DeepSpeed ZeRO-{stage}",
                weights=ranks if stage >= 3 else 1,
                gradients=ranks if stage >= 2 else 1,
                optimizer=ranks if stage >= 1 else 1,
                weights_offloaded=weights_offloaded,
                optimizer_offloaded=optimizer_offloaded,
                masters=True,
            )
        if str_to_bool(os.environ.get("ACCELERATE_USE_FSDP", "false")) or args.fsdp_plugin_args:
            options = args.fsdp_plugin_args or {}
            version = int(options.get("fsdp_version", os.environ.get("FSDP_VERSION", "1")))
            reshard = str(
                options.get("reshard_after_forward", os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true"))
            ).lower()
            offloaded = bool(options.get("cpu_offload", str_to_bool(os.environ.get("FSDP_OFFLOAD_PARAMS", "false"))))
            split = ranks if reshard in ("true", "full_shard") else 1
            return cls(f"FSDP{version}", split, ranks, ranks, offloaded, offloaded, upcast=version == 2)
        return cls("DDP" if ranks > 1 else "one process")


@dataclass(frozen=True)
class Skeleton:
    """A model whose tensors have shapes and types but no storage.

    Args:
        module: The model, with its adapters.
        parameters: Number of parameters without adapters.
        trained: Number of trained parameters.
    """

    module: nn.Module
    parameters: int
    trained: int


def skeleton(recipe: Recipe, description: Description) -> Skeleton:
    """Build the model of a recipe, with its adapters, without weights.

    Args:
        recipe: The parsed recipe.
        description: The configuration of the model.

    Raises:
        ValueError: The attention implementation or the adapters cannot be used, or the checkpoint does not fit a model
            with these `model_init_kwargs`.
    """
    options = dict(recipe.training.model_init_kwargs or {})
    named = options.get("dtype", recipe.model.dtype) or "float32"
    dtype = getattr(torch, named, None) or description.config.dtype or torch.float32
    attention = options.get("attn_implementation", recipe.model.attn_implementation)
    of_any = description.architecture is AutoModelForCausalLM
    from_config = AutoModelForCausalLM.from_config if of_any else description.architecture._from_config
    build = partial(from_config, dtype=dtype, attn_implementation=attention)
    fields = description.config.to_dict().keys() - LOADING_OPTIONS
    changes = {name: value for name, value in options.items() if name in fields}
    with torch.device("meta"), _unsharded():
        try:
            module = build(description.config)
        except (ValueError, ImportError) as error:
            if attention is None:
                raise
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"attn_implementation={attention!r} cannot be used: {reason} Write sdpa or eager."
            ) from None
        if changes:
            module = _changed(module, changes, build)
        parameters = sum(parameter.numel() for parameter in module.parameters())
        if recipe.model.use_peft:
            module = _with_adapters(module, recipe)
    trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    return Skeleton(module, parameters, trained)


def _changed(module: Any, changes: dict[str, Any], build: Callable[..., Any]) -> nn.Module:
    """Build the model with changed values in its configuration, and check that the checkpoint still fits."""
    given = f"model_init_kwargs={changes}"
    try:
        changed = build(type(module.config).from_dict(module.config.to_dict(), **changes))
    except Exception as error:  # models raise many types of errors for unexpected values
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{given}: the model cannot be built ({reason}). Remove this option.") from None
    shapes = {name: tuple(weight.shape) for name, weight in module.named_parameters()}
    for name, weight in changed.named_parameters():
        if name not in shapes:
            raise ValueError(f"{given}: the checkpoint has no {name}, so {name} would be random. Remove this option.")
        if (shape := tuple(weight.shape)) != shapes[name]:
            raise ValueError(
                f"{given}: {name} would have the shape {shape}, but the checkpoint has {shapes[name]}, so it could "
                "not be loaded. Remove this option."
            )
    return changed


@contextlib.contextmanager
def _unsharded() -> Iterator[None]:
    """Build models without sharding inside this context, even if ZeRO-3 is enabled."""
    reference = integration._hf_deepspeed_config_weak_ref
    config = reference() if reference is not None else None
    integration.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if config is not None:
            integration.set_hf_deepspeed_config(config)


def _with_adapters(module: nn.Module, recipe: Recipe) -> nn.Module:
    targets = recipe.model.lora_target_modules
    if targets is not None and "lm_head" in targets:
        raise ValueError(
            f"lora_target_modules={targets!r} puts an adapter on lm_head, which would never be trained: TRL uses the "
            "weight of the LM head directly. Remove lm_head, or write all-linear, which excludes it."
        )
    try:
        module = get_peft_model(module, get_peft_config(recipe.model))
    except ValueError as error:
        linear = sorted({name.split(".")[-1] for name, part in module.named_modules() if isinstance(part, nn.Linear)})
        raise ValueError(
            f"lora_target_modules={targets!r} cannot be adapted: {' '.join(str(error).split())[:200]} Write "
            f"all-linear, or some of {', '.join(linear)}."
        ) from None
    return module


def _runnable(module: Any, mode: FakeTensorMode) -> Any:
    """Replace "meta" tensors by fake tensors, on which operations run. Return the model inside its adapters."""
    replaced: dict[Any, Any] = {}  # keys compare by identity, so tied weights stay tied

    def fake(tensor: Any) -> Any:
        if tensor not in replaced:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype)
            is_parameter = isinstance(tensor, nn.Parameter)
            replaced[tensor] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
        return replaced[tensor]

    with mode:
        for part in module.modules():
            for tensors in (part._parameters, part._buffers):
                tensors.update({name: fake(tensor) for name, tensor in tensors.items() if tensor is not None})
    return module.get_base_model() if hasattr(module, "get_base_model") else module


def estimate(recipe: Recipe, model: Skeleton, prompt_tokens: int) -> list[Part]:
    """Estimate the memory of a rank, part by part.

    Args:
        recipe: The parsed recipe.
        model: Its model, from `skeleton`.
        prompt_tokens: Length of the longest prompt, in tokens.
    """
    args = recipe.training
    sharding = Sharding.of(args)
    weights = _weight_bytes(recipe, model.module, sharding)
    base, trained = sum(weights.values()), 0.0
    gradients = optimizer = 0.0
    states, note = _optimizer_bytes(args)
    for name, parameter in model.module.named_parameters():
        if not parameter.requires_grad:
            continue
        size = _element_size(recipe, name, parameter, sharding)
        trained += parameter.numel()
        gradients += parameter.numel() * size
        optimizer += parameter.numel() * (4 if sharding.masters else 0)
        if states is not None:
            optimizer += states(parameter, 4 if sharding.masters else size)
    parts = [
        Part("weights", base / sharding.weights, _split(sharding.weights), offloaded=sharding.weights_offloaded),
        Part("gradients", gradients / sharding.gradients, _split(sharding.gradients), "training"),
        Part(
            f"optimiser ({getattr(args.optim, 'value', args.optim)})",
            None if states is None else optimizer / sharding.optimizer,
            note if states is None else _split(sharding.optimizer),
            offloaded=sharding.optimizer_offloaded,
        ),
    ]
    if args.beta != 0 and not recipe.model.use_peft:
        parts.append(
            Part("reference model", base / sharding.weights, "beta is not 0", offloaded=sharding.weights_offloaded)
        )
    mode = FakeTensorMode()
    causal = _runnable(model.module, mode)
    with mode, torch.device("cpu"):
        parts.append(_generation(recipe, causal, prompt_tokens))
    if sharding.weights > 1 and not args.use_vllm:
        parts.append(Part("gathered weights", base, "generation needs unsharded weights", "generation"))
    with mode, torch.device("cpu"):
        parts += _training(recipe, causal, prompt_tokens)
    return parts


def peak(parts: Iterable[Part]) -> float:
    """Peak memory on the device in bytes, without the parts of unknown size."""
    parts = [part for part in parts if part.size is not None and not part.offloaded]
    return max(
        sum(part.size or 0 for part in parts if part.phase in ("always", phase)) for phase in ("generation", "training")
    )


def _split(ranks: int) -> str:
    return f"split over {ranks} ranks" if ranks > 1 else ""


def _element_size(recipe: Recipe, name: str, parameter: nn.Parameter, sharding: Sharding) -> int:
    """Bytes per element of an unquantised weight in the trainer."""
    adapter = recipe.model.use_peft and parameter.requires_grad
    if adapter and (recipe.model.load_in_4bit or recipe.model.load_in_8bit):
        return 2  # TRL casts the adapters of a quantised model to bfloat16
    if sharding.masters and recipe.training.bf16:
        return 2
    if sharding.upcast and recipe.training.bf16 and parameter.requires_grad:
        return 4
    return parameter.element_size()


def _weight_bytes(recipe: Recipe, module: Any, sharding: Sharding) -> dict[str, float]:
    sizes = {
        name: float(parameter.numel() * _element_size(recipe, name, parameter, sharding))
        for name, parameter in module.named_parameters()
    }
    if recipe.model.load_in_4bit or recipe.model.load_in_8bit:
        head = module.get_output_embeddings()
        for name, part in module.named_modules():
            weight = f"{name}.weight"
            if isinstance(part, nn.Linear) and part is not head and weight in sizes and not part.weight.requires_grad:
                sizes[weight] = _quantised_bytes(recipe, part.weight)
    return sizes


def _quantised_bytes(recipe: Recipe, weight: torch.Tensor) -> float:
    """Bytes of a weight quantised by bitsandbytes.

    8 bits: one byte per element and one float32 scale per row. 4 bits: half a byte per element and one scale per 64
    elements, as float32 or, with nested quantisation, as one byte.
    """
    if recipe.model.load_in_8bit:
        return weight.numel() + 4 * weight.shape[0]
    blocks = ceil(weight.numel() / 64)
    scales = blocks + 4 * ceil(blocks / 256) if recipe.model.use_bnb_nested_quant else 4 * blocks
    return ceil(weight.numel() / 2) + scales


def _optimizer_bytes(args: GRPOConfig) -> tuple[Any, str]:
    """Memory of the optimiser states.

    Returns:
        A function from a parameter and its element size to the bytes of its states, and an empty text. For unknown
        optimisers None, and the reason.
    """
    name = str(getattr(args.optim, "value", args.optim))
    if "8bit" in name and name.removeprefix("paged_").startswith(("adamw_bnb", "adamw_8bit", "lion")):
        count = 1 if "lion" in name else 2
        # tensors of less than 4096 values stay in float32; others have one float32 scale per 256 values
        return (
            lambda p, size: count * (p.numel() + 4 * ceil(p.numel() / 256) if p.numel() >= 4096 else 4 * p.numel()),
            "",
        )
    if name in ("adamw_torch", "adamw_torch_fused"):
        return lambda p, size: 2 * p.numel() * size + 4, ""  # 4 bytes for the step
    if name.startswith("paged_adamw_32bit"):
        return lambda p, size: 8 * p.numel(), ""
    if name == "sgd":
        return lambda p, size: 0, ""
    if name in ("adagrad", "rmsprop"):
        return lambda p, size: p.numel() * size + 4, ""
    return None, f"the state size of {name} is not known"


def _generation(recipe: Recipe, model: Any, prompt_tokens: int) -> Part:
    """Memory for generation in addition to the weights."""
    args = recipe.training
    if args.use_vllm:
        share = args.vllm_gpu_memory_utilization
        if args.vllm_mode == "server":
            return Part("KV cache", 0, "on the vLLM server", "generation")
        sleeps = "generation" if args.vllm_enable_sleep_mode else "always"
        if not torch.cuda.is_available():
            return Part(
                "vLLM engine", None, f"{share:.0%} of a GPU, including its own weights; this machine has no GPU", sleeps
            )
        size = share * torch.cuda.get_device_properties(0).total_memory
        return Part("vLLM engine", size, f"{share:.0%} of the GPU, for its own weights and KV cache", sleeps)
    rows = args.generation_batch_size // args.world_size
    tokens = prompt_tokens + args.max_completion_length
    note = f"{rows:,} completions × {tokens:,} tokens"
    try:
        with torch.no_grad():
            output = model.base_model(
                input_ids=torch.zeros(1, tokens, dtype=torch.long),
                attention_mask=torch.ones(1, tokens, dtype=torch.long),
                use_cache=True,
            )
        cache = output[architecture.CACHE]
        tensors = {id(t): t for layer in cache.layers for t in tree_leaves(vars(layer)) if isinstance(t, torch.Tensor)}
        size = sum(t.numel() * t.element_size() for t in tensors.values() if t.is_floating_point())
    except Exception as error:  # models raise many types of errors on fake tensors
        return Part("KV cache", None, f"this model cannot run on fake tensors ({type(error).__name__})", "generation")
    return Part("KV cache", rows * size, note, "generation")


def _training(recipe: Recipe, model: Any, prompt_tokens: int) -> list[Part]:
    """Activations of one micro-batch, and the memory of the LM head."""
    args = recipe.training
    rows, completion = args.per_device_train_batch_size, args.max_completion_length
    tokens = prompt_tokens + completion
    head = model.get_output_embeddings().weight
    trims = "trim_padding" in requested_speedups(args.exact_speedups) and architecture.trims(model)
    completions_only = args.device.type == "cuda"  # elsewhere TRL's LM head runs on the prompts too
    scored = rows * (completion if completions_only else tokens - 1)
    compute = 2 if args.bf16 or args.fp16 else head.element_size()
    logits = min(scored, TOKEN_CHUNK_SIZE) * _CHUNKED_LOGPROB_CHUNK_SIZE * compute
    head_size = logits + scored * head.shape[1] * 4
    note = f"{min(scored, TOKEN_CHUNK_SIZE):,} × {_CHUNKED_LOGPROB_CHUNK_SIZE:,} logits at a time"
    if head.requires_grad:
        head_size += head.numel() * (4 + head.element_size())
        note += ", and the float32 gradient of the head"
    try:
        masked = not (trims and architecture.attends_backwards_only(model.config))
        size = _activations(args, model, rows, tokens, masked)
        activations = Part("activations", size, f"one micro-batch of {rows} × {tokens:,} tokens", "training")
    except Exception as error:  # as in _generation
        reason = f"this model cannot run on fake tensors ({type(error).__name__})"
        activations = Part("activations", None, reason, "training")
    return [activations, Part("LM-head chunk", head_size, note, "training")]


def _activations(args: GRPOConfig, module: Any, rows: int, tokens: int, masked: bool) -> int:
    """Peak bytes of a forward and backward pass of the backbone, without weights and their gradients."""
    module.train()
    if args.activation_checkpointing:
        module.activation_checkpointing_enable(args.activation_checkpointing_kwargs)
        if not all(parameter.requires_grad for parameter in module.parameters()):
            module.enable_input_require_grads()
    precision = {"bf16": torch.bfloat16, "fp16": torch.float16}
    low = next((precision[name] for name in precision if getattr(args, name)), None)
    autocast = torch.autocast("cpu", dtype=low) if low else contextlib.nullcontext()
    handles = [
        parameter.register_post_accumulate_grad_hook(_drop_gradient)
        for parameter in module.parameters()
        if parameter.requires_grad
    ]
    live = _Live(module.parameters())
    try:
        with live:
            batch = {"input_ids": torch.zeros(rows, tokens, dtype=torch.long)}
            if masked:
                batch["attention_mask"] = torch.ones_like(batch["input_ids"])
            with autocast:
                states = module.base_model(**batch, use_cache=False).last_hidden_state
            states.backward(torch.zeros_like(states))
    finally:
        for handle in handles:
            handle.remove()
    return live.peak


def _drop_gradient(parameter: nn.Parameter) -> None:
    parameter.grad = None


class _Live(TorchDispatchMode):
    """Counts the bytes of all live tensors that are created inside this context.

    Args:
        known: Parameters to leave out.
    """

    def __init__(self, known: Iterator[nn.Parameter]):
        super().__init__()
        self._sizes = {parameter.untyped_storage()._cdata: 0 for parameter in known}
        self._bytes = self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self._sizes:
            return
        self._sizes[storage._cdata] = storage.nbytes()
        self._bytes += storage.nbytes()
        self.peak = max(self.peak, self._bytes)
        weakref.finalize(storage, self._forget, storage._cdata)

    def _forget(self, key: int) -> None:
        self._bytes -= self._sizes.pop(key)
