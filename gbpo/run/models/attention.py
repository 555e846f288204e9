"""Chooses the attention implementation for `attn_implementation: auto`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_flash_attention_utils import FLASH_ATTN_KERNEL_FALLBACK
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available, is_kernels_available
from transformers.utils.import_utils import (
    KERNELS_MAX_VERSION,
    KERNELS_MIN_VERSION,
    is_flash_attn_kernel_fallback_available,
)

from ..recipe.parsing import Recipe
from .description import Description

AUTO = "auto"

# transformers also has a kernel for FlashAttention 3. It is vLLM's, which is built without the backward pass.
_KERNEL = FLASH_ATTN_KERNEL_FALLBACK["flash_attention_2"]


@dataclass(frozen=True)
class Attention:
    """An attention implementation, and why it was chosen.

    Args:
        name: Its name in transformers, or None for the default of the model.
        reason: Why `auto` gives this name; empty if the recipe names the implementation.
    """

    name: str | None
    reason: str = ""

    def __str__(self) -> str:
        name = self.name or "default of the model"
        return f"{name} ({self.reason})" if self.reason else name


def choose(recipe: Recipe, description: Description) -> Attention:
    """The attention implementation that a recipe names.

    `auto` gives FlashAttention if this machine can train the model with it, otherwise sdpa.
    """
    options = recipe.training.model_init_kwargs or {}
    if "attn_implementation" in options:
        return Attention(options["attn_implementation"])
    if recipe.model.attn_implementation != AUTO:
        return Attention(recipe.model.attn_implementation)
    against = _reason_against_flash(recipe, description)
    if not against:
        supported = getattr(description.architecture, "_compatible_flash_implementations", None)
        for attention in _installed(recipe.training.device):
            if supported is None or attention.name in supported:
                return attention
        against = f"neither the package flash-attn nor the kernel {_KERNEL} can be used"
        if not is_kernels_available():
            kernels = f"'kernels>={KERNELS_MIN_VERSION},<{KERNELS_MAX_VERSION}'"
            against = f"FlashAttention is not installed: pip install flash-attn, or pip install {kernels}"
        if supported is not None:
            against = f"{description.architecture.__name__} takes only {', '.join(supported)}"
    has_sdpa = getattr(description.architecture, "_supports_sdpa", True)
    return Attention("sdpa" if has_sdpa else "eager", against)


def _reason_against_flash(recipe: Recipe, description: Description) -> str:
    """Why this run cannot use any FlashAttention; empty if it can."""
    device, architecture = recipe.training.device, description.architecture
    if device.type != "cuda":
        return "no GPU"
    if not getattr(architecture, "_supports_flash_attn", False):
        return f"{architecture.__name__} does not support FlashAttention"
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8:
        return f"FlashAttention needs compute capability 8.0, this GPU has {major}.{minor}"
    return _reason_against_dtype(recipe, description)


def _reason_against_dtype(recipe: Recipe, description: Description) -> str:
    """Why attention would get float32 tensors in this run; empty if it would not."""
    args, named = recipe.training, (recipe.training.model_init_kwargs or {}).get("dtype", recipe.model.dtype)
    weights = description.config.dtype if named == "auto" else named
    if str(weights).removeprefix("torch.") in ("bfloat16", "float16"):
        return ""
    if not (args.bf16 or args.fp16):
        return "FlashAttention needs bf16 or fp16"
    if recipe.model.use_peft and not args.use_vllm:  # generation calls the base model without mixed precision
        return "FlashAttention needs dtype: bfloat16 where transformers generates with an adapter"
    return ""


def _installed(device: Any) -> Iterator[Attention]:
    """The implementations of FlashAttention that can be used on a GPU, fastest first."""
    major, _ = torch.cuda.get_device_capability(device)
    if major == 9 and is_flash_attn_3_available():
        yield Attention("flash_attention_3", "package flash-attn-3")
    if is_flash_attn_2_available():
        yield Attention("flash_attention_2", "package flash-attn")
    if is_flash_attn_kernel_fallback_available(2):  # loads the kernel from the cache or the Hub
        yield Attention(_KERNEL, "kernel from the Hub")
