"""The device that a recipe trains on: its memory and its precision."""

import os
from dataclasses import dataclass

import torch
from accelerate.utils import str_to_bool

from ..recipe.parsing import Recipe

_CARDS = (24, 40, 48, 80, 141)  # GB of the usual GPUs


@dataclass(frozen=True)
class Device:
    """Memory that a rank can use.

    Args:
        name: Whose memory it is, for a sentence: `"the GPU"`, `"the machine"` or `"a card of 80 GB"`.
        memory: Bytes.
    """

    name: str
    memory: float


def device_here(recipe: Recipe) -> Device | None:
    """The device that a rank of this recipe would use on this machine. None if it needs a GPU and there is none."""
    args = recipe.training
    if args.device.type == "cuda":
        return Device("the GPU", torch.cuda.get_device_properties(args.device).total_memory)
    if trains_on_gpu(recipe):
        return None
    ranks = f" (shared by {args.world_size} ranks)" if args.world_size > 1 else ""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Device(f"this machine{ranks}", machine / args.world_size)


def usual_cards() -> list[Device]:
    """The usual GPUs, from small to large. A GB counts 10^9 bytes, so a card has at least as much as this."""
    return [Device(f"a card of {size} GB", size * 1e9) for size in _CARDS]


def trains_on_gpu(recipe: Recipe) -> bool:
    """Whether the recipe is meant for a GPU. On a machine without an accelerator it is, unless it asks for the CPU."""
    asks_for_cpu = "use_cpu" in recipe.given and recipe.training.use_cpu
    if asks_for_cpu or str_to_bool(os.environ.get("ACCELERATE_USE_CPU", "false")):
        return False
    return torch.cuda.is_available() or not torch.accelerator.is_available()


def precision(recipe: Recipe) -> torch.dtype | None:
    """The type of mixed precision, or None without mixed precision.

    On a machine without an accelerator, a recipe for GPUs gets bfloat16, which is the default on a GPU.
    """
    args = recipe.training
    if args.fp16:
        return torch.float16
    default = trains_on_gpu(recipe) and args.use_cpu and "bf16" not in recipe.given
    return torch.bfloat16 if args.bf16 or default else None
