"""Estimates the memory of a rank, part by part, without loading weights.

The model is built from its configuration with tensors that have no storage. Each part says whether it is exact, which
means equal to a real run to the last byte, or approximate. The KV cache and the activations are measured by running the
model on such tensors.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from typing import Any

import torch
from accelerate.utils import str_to_bool
from peft import get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.integrations import deepspeed as integration
from trl import GRPOConfig, get_peft_config

from ..models.description import LOADING_OPTIONS, Description
from ..recipe.parsing import Recipe
from .device import Device, precision, trains_on_gpu, usual_cards
from .fake_runs import FakeModel
from .training_pass import TrainingPass

# CUDA's own memory in a process: context, kernels and cuBLAS workspace. It depends on the GPU and the driver.
_CUDA_CONTEXT = 0.5 * 2**30
# defaults of DeepSpeed, in elements
_REDUCE_BUCKET = 500_000_000
_LIVE_PARAMETERS = 1_000_000_000
# optimisers whose states are plain tensors of the size of a weight
_PLAIN_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "sgd", "adagrad", "rmsprop")


@dataclass(frozen=True)
class Part:
    """One part of a rank's memory.

    Args:
        name: Name of the part.
        size: Bytes, or None if the size is unknown.
        note: Details, or why the size is unknown.
        phase: When the memory is used: `"always"`, `"generation"` or `"training"`.
        offloaded: Whether the part is in host memory instead of on the device.
        exact: Whether a real run uses exactly this many bytes for this part.
    """

    name: str
    size: float | None
    note: str = ""
    phase: str = "always"
    offloaded: bool = False
    exact: bool = False


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
    reshards: bool = True  # FSDP frees the gathered weights of a layer after its forward pass
    zero: dict[str, Any] | None = None  # DeepSpeed's options of ZeRO

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
                zero=config,
            )
        if str_to_bool(os.environ.get("ACCELERATE_USE_FSDP", "false")) or args.fsdp_plugin_args:
            options = args.fsdp_plugin_args or {}
            version = int(options.get("fsdp_version", os.environ.get("FSDP_VERSION", "1")))
            reshard = str(
                options.get("reshard_after_forward", os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true"))
            ).lower()
            offloaded = bool(options.get("cpu_offload", str_to_bool(os.environ.get("FSDP_OFFLOAD_PARAMS", "false"))))
            return cls(
                f"FSDP{version}",
                weights=ranks,
                gradients=ranks,
                optimizer=ranks,
                weights_offloaded=offloaded,
                optimizer_offloaded=offloaded,
                upcast=version == 2,
                reshards=reshard in ("true", "full_shard"),
            )
        return cls("DDP" if ranks > 1 else "one process")

    @property
    def is_fsdp(self) -> bool:
        return self.name.startswith("FSDP")

    @property
    def holds_whole_model(self) -> bool:
        """Whether every rank has all weights, gradients and optimiser states, in the types that the recipe gives."""
        return not self.is_fsdp and not self.masters


@dataclass(frozen=True)
class Skeleton:
    """A model whose tensors have shapes and types but no storage.

    Args:
        module: The model, with its adapters.
        parameters: Number of parameters without adapters.
        trained: Number of trained parameters.
        dtype: The type of its weights.
    """

    module: nn.Module
    parameters: int
    trained: int
    dtype: torch.dtype

    @property
    def vision(self) -> tuple[int, int]:
        """Number of parameters of the vision tower, with adapters, and of its trained parameters."""
        part: Any = self.module
        config = part.config.vision_config
        tower = next(part for part in self.module.modules() if getattr(part, "config", None) is config)
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in tower.parameters()]
        return sum(size for size, _ in sizes), sum(size for size, learns in sizes if learns)


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
    return Skeleton(module, parameters, trained, dtype)


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
    parts = dict(module.named_modules())
    try:
        for target in targets if isinstance(targets, list) else ():  # PEFT wants only one of them to be there
            if not any(f".{name}".endswith(f".{target}") for name in parts):
                raise ValueError(f"The model has no module {target!r}.")
        return get_peft_model(module, get_peft_config(recipe.model))
    except ValueError as error:
        linear = sorted({name.split(".")[-1] for name, part in parts.items() if isinstance(part, nn.Linear)})
        raise ValueError(
            f"lora_target_modules={targets!r} cannot be adapted: {' '.join(str(error).split())[:200]} Write "
            f"all-linear, or some of {', '.join(linear)}."
        ) from None


@dataclass(frozen=True)
class VllmShare:
    """The memory of a vLLM engine on the trainer's GPU.

    Args:
        share: `vllm_gpu_memory_utilization`.
        weights: Bytes of the engine's weights on this GPU.
        completion: Bytes of the keys and values of one completion of full length with its prompt on this GPU; 0 if the
            size is unknown.
        completions: Completions of one generation that this engine samples.
        phase: `"generation"` if the engine sleeps during training, otherwise `"always"`.
    """

    share: float
    weights: float
    completion: float
    completions: int
    phase: str

    def parts(self, card: float) -> list[Part]:
        """Weights and KV cache, which together fill the share of a GPU of `card` bytes."""
        cache = max(self.share * card - self.weights, 0)
        note = f"the rest of vLLM's {self.share:.0%}, less its activations"
        if self.completion:
            note += f": {int(cache // self.completion):,} completions of full length at once, of {self.completions:,}"
        return [Part("vLLM weights", self.weights, phase=self.phase), Part("vLLM KV cache", cache, note, self.phase)]

    def lacks(self, card: float) -> str | None:
        """Why the engine cannot start on a GPU of `card` bytes, in one line; None if it can."""
        given, needed = self.share * card, self.weights + self.completion
        if needed <= given:
            return None
        what = "weights" if self.weights > given else "weights and the KV cache of one completion of full length"
        enough = ceil(100 * needed / card) / 100
        fix = f"vllm_gpu_memory_utilization: {enough:g}, or " if enough < 1 else ""
        return (
            f"vllm_gpu_memory_utilization={self.share:g} gives vLLM {gibibytes(given)} of {gibibytes(card)}, but its "
            f"{what} take {gibibytes(needed)}: the engine would not start. Write {fix}a larger "
            "vllm_tensor_parallel_size."
        )


@dataclass(frozen=True)
class Estimate:
    """The memory of a rank.

    Args:
        states: Weights, gradients, optimiser and what else does not depend on the size of a pass.
        passes: What the largest forward and backward pass of the recipe needs.
        vllm: The vLLM engine on the trainer's GPU, or None.
        training_pass: Measures passes of other sizes.
    """

    states: tuple[Part, ...]
    passes: tuple[Part, ...]
    vllm: VllmShare | None
    training_pass: TrainingPass

    def parts(self, card: float) -> list[Part]:
        """All parts on a device of `card` bytes. Only vLLM's parts depend on the device."""
        return [*self.states, *(self.vllm.parts(card) if self.vllm else ()), *self.passes]

    def fits(self, card: float) -> bool:
        """Whether everything fits on a device of `card` bytes."""
        return peak(self.parts(card)) <= card and (self.vllm is None or self.vllm.lacks(card) is None)

    def room(self, card: float) -> float:
        """Bytes of a device of `card` bytes that are left for a forward and backward pass."""
        return card - in_phase("training", [part for part in self.parts(card) if part not in self.passes])

    def device(self, here: Device | None) -> Device:
        """The device to judge: the one here or, without one, the smallest usual GPU on which everything fits."""
        cards = usual_cards()
        return here or next((card for card in cards if self.fits(card.memory)), cards[-1])

    def verdict(self, here: Device | None) -> str:
        """The peak, and the memory of the device here or the size of GPU that is needed."""
        device = self.device(here)
        text = f"about {gibibytes(peak(self.parts(device.memory)))}; "
        if here is not None:
            return text + f"{here.name} has {gibibytes(here.memory)}"
        needed = device.name if self.fits(device.memory) else f"more than {device.name}"
        return text + f"there is no GPU here, and the run needs {needed}"


def estimate(
    recipe: Recipe, model: Skeleton, prompt_tokens: int, images: Mapping[str, torch.Tensor] | None = None
) -> Estimate:
    """Estimate the memory of a rank.

    Args:
        recipe: The parsed recipe.
        model: Its model, from `skeleton`.
        prompt_tokens: Length of the longest prompt, in tokens.
        images: What the processor makes of the row with the most pixels, if the recipe has images.
    """
    args, sharding = recipe.training, Sharding.of(recipe.training)
    # sharded weights are gathered in the type of mixed precision; whole weights are cast inside the pass
    dtype = None if sharding.holds_whole_model else precision(recipe)
    training_pass = TrainingPass(recipe, FakeModel(deepcopy(model.module), dtype, images), prompt_tokens)
    states = [*_states(recipe, model.module, sharding), *_communication(recipe, model.module, sharding, training_pass)]
    if trains_on_gpu(recipe):
        states.append(Part("CUDA context", _CUDA_CONTEXT, "not counted by PyTorch"))
    vllm = None
    if args.use_vllm and args.vllm_mode == "colocate":
        vllm = _vllm_share(recipe, model, training_pass)
    else:
        states += _generation(recipe, model, training_pass)
        if sharding.weights > 1 and not args.use_vllm:
            whole = sum(_weight_bytes(recipe, model.module, sharding).values())
            states.append(Part("gathered weights", whole, "generation needs unsharded weights", "generation"))
    return Estimate(tuple(states), tuple(_passes(training_pass)), vllm, training_pass)


def in_phase(phase: str, parts: Iterable[Part]) -> float:
    """Bytes on the device in a phase, without the parts of unknown size."""
    return sum(part.size or 0 for part in parts if part.phase in ("always", phase) and not part.offloaded)


def peak(parts: Sequence[Part]) -> float:
    """Peak memory on the device in bytes, without the parts of unknown size."""
    return max(in_phase(phase, parts) for phase in ("generation", "training"))


def gibibytes(size: float) -> str:
    """
    >>> gibibytes(3 * 2**30), gibibytes(3 * 2**20)
    ('3.00 GiB', '3.0 MiB')
    """
    return f"{size / 2**30:,.2f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:,.1f} MiB"


def _states(recipe: Recipe, module: Any, sharding: Sharding) -> list[Part]:
    """Weights, optimiser states and the reference model."""
    args, model = recipe.training, recipe.model
    base = sum(_weight_bytes(recipe, module, sharding).values())
    quantised = model.load_in_4bit or model.load_in_8bit
    states, note = _optimizer_bytes(args)
    optimizer = 0.0
    for parameter, size in _trained(recipe, module, sharding):
        if sharding.masters:
            optimizer += 4 * parameter.numel()
        if states is not None:
            optimizer += states(parameter, 4 if sharding.masters else size)
    name = str(getattr(args.optim, "value", args.optim))
    weights = Part(
        "weights",
        base / sharding.weights,
        _split(sharding.weights),
        offloaded=sharding.weights_offloaded,
        exact=sharding.holds_whole_model and not quantised,
    )
    parts = [
        weights,
        Part(
            f"optimiser ({name})",
            None if states is None else optimizer / sharding.optimizer,
            note if states is None else _split(sharding.optimizer),
            offloaded=sharding.optimizer_offloaded,
            exact=sharding.holds_whole_model and name in _PLAIN_OPTIMIZERS,
        ),
    ]
    if args.beta != 0 and not model.use_peft:
        parts.append(replace(weights, name="reference model", note="beta is not 0"))
    return parts


def _communication(recipe: Recipe, module: Any, sharding: Sharding, training_pass: TrainingPass) -> list[Part]:
    """Gradients, and the buffers with which ranks exchange weights and gradients."""
    low = precision(recipe)
    trained = list(_trained(recipe, module, sharding))
    gradients = float(sum(parameter.numel() * size for parameter, size in trained))
    exact = sharding.holds_whole_model
    parts = [Part("gradients", gradients / sharding.gradients, _split(sharding.gradients), "training", exact=exact)]
    if sharding.is_fsdp and training_pass.defers_reduction:
        whole = float(sum(parameter.numel() * (low.itemsize if low else size) for parameter, size in trained))
        note = (
            "whole on every rank between the passes of an optimiser step; accelerator_config: "
            "{gradient_accumulation_kwargs: {sync_each_batch: true}} splits them"
        )
        parts = [Part("gradients", max(whole, gradients / sharding.gradients), note, "training")]
    if sharding.name == "DDP":
        parts.append(Part("DDP buckets", gradients, "DDP reduces copies of the gradients"))
    total = sum(parameter.numel() for parameter in module.parameters())
    itemsize = low.itemsize if low else next(module.parameters()).element_size()
    if sharding.is_fsdp and sharding.weights > 1:
        layers = [
            sum(parameter.numel() for parameter in part.parameters())
            for part in module.modules()
            if type(part).__name__ in (getattr(module, "_no_split_modules", None) or ())
        ]
        # the next layer is gathered while one runs; what is outside the layers stays gathered
        elements = total - sum(layers) + 2 * max(layers, default=0) if sharding.reshards else total
        parts.append(Part("gathered layers", elements * itemsize, "weights of two layers at a time", "training"))
    if sharding.zero is not None and sharding.optimizer > 1:
        bucket = sharding.zero.get("reduce_bucket_size", _REDUCE_BUCKET)
        elements = bucket if isinstance(bucket, (int, float)) else module.config.get_text_config().hidden_size ** 2
        if sharding.weights == 1 and sharding.zero.get("overlap_comm"):
            elements *= 2
        parts.append(Part("reduce bucket", elements * itemsize, "zero_optimization.reduce_bucket_size", "training"))
        if sharding.weights > 1:
            live = sharding.zero.get("stage3_max_live_parameters", _LIVE_PARAMETERS)
            elements = min(total, live if isinstance(live, (int, float)) else _LIVE_PARAMETERS)
            parts.append(Part("gathered layers", elements * itemsize, "stage3_max_live_parameters", "training"))
    return parts


def _trained(recipe: Recipe, module: Any, sharding: Sharding) -> Iterator[tuple[nn.Parameter, int]]:
    """The trained parameters, and their bytes per element."""
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            yield parameter, _element_size(recipe, name, parameter, sharding)


def _split(ranks: int) -> str:
    return f"split over {ranks} ranks" if ranks > 1 else ""


def _element_size(recipe: Recipe, name: str, parameter: nn.Parameter, sharding: Sharding) -> int:
    """Bytes per element of an unquantised weight in the trainer."""
    adapter = recipe.model.use_peft and parameter.requires_grad
    if adapter and (recipe.model.load_in_4bit or recipe.model.load_in_8bit):
        return 2  # TRL casts the adapters of a quantised model to bfloat16
    if sharding.masters and precision(recipe) is not None:
        return 2
    if sharding.upcast and precision(recipe) is not None and parameter.requires_grad:
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


def _generation(recipe: Recipe, model: Skeleton, training_pass: TrainingPass) -> list[Part]:
    """Memory for generation with transformers in addition to the weights."""
    args = recipe.training
    if args.use_vllm:
        return [Part("KV cache", 0, "on the vLLM server", "generation", exact=True)]
    rows = args.generation_batch_size // args.world_size
    try:
        values = training_pass.model.cached_values(training_pass.longest)
    except Exception as error:  # models raise many types of errors on fake tensors
        return [Part("KV cache", None, _not_run(error), "generation")]
    size = rows * values * model.dtype.itemsize
    note = f"{rows:,} completions × {training_pass.longest:,} tokens"
    return [Part("KV cache", size, note, "generation"), *_fragmentation(training_pass, size, "generation")]


def _vllm_share(recipe: Recipe, model: Skeleton, training_pass: TrainingPass) -> VllmShare:
    args, config = recipe.training, training_pass.model.causal.config.get_text_config()
    tensor_parallel = args.vllm_tensor_parallel_size
    itemsize = (precision(recipe) or model.dtype).itemsize  # as the trainer, which gives the engine its own type
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    try:
        values = training_pass.model.cached_values(training_pass.longest)
    except Exception:  # as in _generation
        values = 0
    return VllmShare(
        share=args.vllm_gpu_memory_utilization,
        weights=model.parameters * itemsize / tensor_parallel,
        completion=values * itemsize / min(tensor_parallel, heads),
        completions=args.generation_batch_size // args.world_size * tensor_parallel,
        phase="generation" if args.vllm_enable_sleep_mode else "always",
    )


def _passes(training_pass: TrainingPass) -> list[Part]:
    """Memory of the largest pass: what it takes without its LM head, and how much more with it."""
    tokens, checkpointing = training_pass.tokens, training_pass.recipe.training.activation_checkpointing
    rows, width = training_pass.shape(tokens)
    try:
        layers, whole = (
            training_pass.activations(tokens, checkpointing=checkpointing, head=head) for head in (False, True)
        )
    except Exception as error:  # as in _generation
        return [Part("activations", None, _not_run(error), "training")]
    layers = min(layers, whole)  # the fake runs differ a little, where the head adds nothing to the peak
    return [
        Part("activations", layers, f"one pass of {rows:,} × {width:,} tokens", "training"),
        Part("LM head", whole - layers, "logits of a few tokens at a time, and the gradient of the head", "training"),
        *_fragmentation(training_pass, whole, "training"),
    ]


def _fragmentation(training_pass: TrainingPass, size: float, phase: str) -> list[Part]:
    unusable = training_pass.fragmentation(size)
    return [Part("fragmentation", unusable, "reserved by PyTorch, but not usable", phase)] if unusable else []


def _not_run(error: Exception) -> str:
    return f"this model cannot run on fake tensors ({type(error).__name__})"
