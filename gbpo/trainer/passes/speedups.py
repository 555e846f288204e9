"""Decides which exact speed-ups act in a run, and gives the reason why each of the others does not."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

from trl import GRPOConfig

from . import capabilities

# With each of these, the gradient equals TRL's up to rounding.
SPEEDUPS = {
    "trim_padding": "forward passes run without TRL's padding",
    "arrange_rows": "rows of similar length in one optimiser step share a forward pass",
    "skip_zero_signal": "rows whose loss is exactly zero are not run",
    "pack_rows": "rows of a pass are concatenated without padding",
    "share_prompts": "a prompt is run once for all of its completions",
    "reuse_first_pass": "old log-probs come from the first optimiser step on a generation",
}

# Arguments of a forward pass that continues from cached keys and values.
_CONTINUES = {"input_ids", "attention_mask", "position_ids", capabilities.CACHE, "logits_to_keep"}


def requested_speedups(exact_speedups: str | Iterable[str]) -> frozenset[str]:
    """The names of the speed-ups that the field `exact_speedups` asks for.

    Raises:
        ValueError: The field is neither `"all"`, `"none"` nor a list of known names.

    >>> sorted(requested_speedups(["pack_rows", "trim_padding"]))
    ['pack_rows', 'trim_padding']
    """
    names = [exact_speedups] if isinstance(exact_speedups, str) else list(exact_speedups)
    if names in (["all"], ["none"]):
        return frozenset(SPEEDUPS if names == ["all"] else ())
    for name in names:
        if name not in SPEEDUPS:
            raise ValueError(
                f"exact_speedups={exact_speedups!r} has {name!r}, which is not a speed-up. Write all, none, or a list "
                f"of {', '.join(SPEEDUPS)}."
            )
    return frozenset(names)


@dataclass(frozen=True)
class Speedups:
    """The speed-ups of a run.

    Args:
        inactive: Name of each speed-up that does not act, and the reason.
        without_sharing_in_passes: Why prompts are shared in generation only; None if they are shared in passes too.
    """

    inactive: Mapping[str, str]
    without_sharing_in_passes: str | None = None

    def __contains__(self, name: str) -> bool:
        return name not in self.inactive

    def state(self, name: str) -> str:
        """One line: "on" and what the speed-up does, or "off" and the reason."""
        if name not in self:
            return f"off: {self.inactive[name]}"
        only = self.without_sharing_in_passes if name == "share_prompts" else None
        return f"on: {SPEEDUPS[name]}" + (f", in generation only ({only})" if only else "")

    def line(self) -> str:
        """A line for the log: which speed-ups act, and why the others do not."""
        active = [name for name in SPEEDUPS if name in self]
        text = f"Exact speed-ups: {', '.join(active) or 'none'}."
        if self.without_sharing_in_passes and "share_prompts" in self:
            text += f" Prompts are shared in generation only: {self.without_sharing_in_passes}."
        if self.inactive:
            text += f" Not active: {'; '.join(f'{name} ({why})' for name, why in self.inactive.items())}."
        return text


def decide(
    args: GRPOConfig, model: Any, *, bounded_loss: bool, whole_model: bool, has_images: bool = False
) -> Speedups:
    """Decide which speed-ups are exact in this run.

    Args:
        args: The configuration of the trainer. If the configuration has no field `exact_speedups`, all are requested.
        model: The model, with or without its weights.
        bounded_loss: Whether the loss is GBPO's, a weighted sum over rows. TRL's loss is computed per micro-batch.
        whole_model: Whether every process holds the whole model.
        has_images: Whether the rows have images, which TRL's own forward pass runs.
    """
    requested = requested_speedups(getattr(args, "exact_speedups", "all"))
    inactive = {name: "not in exact_speedups" for name in SPEEDUPS if name not in requested}
    without_sharing_in_passes = None
    for name in SPEEDUPS:
        if name in inactive:
            continue
        why: str | None
        if has_images and name not in ("skip_zero_signal", "reuse_first_pass"):
            why = "TRL's forward pass runs rows with images"
        elif name in ("trim_padding", "pack_rows"):
            why = _padding(model) or (_packing(model, inactive) if name == "pack_rows" else None)
        elif name == "share_prompts":
            why = _sharing(model, whole_model)
            without_sharing_in_passes = _sharing_in_passes(args, model, inactive)
        else:
            own_loss = bounded_loss or name == "reuse_first_pass"
            why = _rows(args, model, name) if own_loss else "TRL's GRPO loss is computed per micro-batch"
        if why:
            inactive[name] = why
    return Speedups({name: inactive[name] for name in SPEEDUPS if name in inactive}, without_sharing_in_passes)


def _padding(model: Any) -> str | None:
    if capabilities.is_prompt_tuned(model):
        return "prompt tuning"
    if capabilities.depends_on_width(model.config):
        return "rotary embeddings depend on the width of the batch"
    return None


def _packing(model: Any, inactive: Mapping[str, str]) -> str | None:
    if "trim_padding" in inactive:
        return "needs trim_padding"
    if not capabilities.packs(model.config):
        return f"attention is {model.config.get_text_config()._attn_implementation}, packing needs FlashAttention"
    return None


def _sharing(model: Any, whole_model: bool) -> str | None:
    if capabilities.is_prompt_tuned(model):
        return "prompt tuning"
    if not whole_model:
        return "the model is sharded"
    if capabilities.has_dropout(model):
        return "the model has dropout, which would be the same for all completions of a prompt"
    if not signature(type(capabilities.decoder_of(model)).forward).parameters.keys() >= _CONTINUES:
        return "the model does not accept cached keys and values"
    if not capabilities.shares(model.config):
        return "this model's attention or layers do not allow shared prompts"
    return None


def _sharing_in_passes(args: GRPOConfig, model: Any, inactive: Mapping[str, str]) -> str | None:
    if "trim_padding" in inactive:
        return "needs trim_padding"
    if "pack_rows" not in inactive:
        return "rows are packed"
    if not capabilities.has_rotary_embeddings(model.config):
        return "positions are absolute"
    if args.pad_to_multiple_of:
        return f"pad_to_multiple_of={args.pad_to_multiple_of}"
    if args.activation_checkpointing:
        return "activation checkpointing keeps no keys and values"
    return None


def _rows(args: GRPOConfig, model: Any, name: str) -> str | None:
    if name == "reuse_first_pass":
        if getattr(args, "ratio_anchor", None) == "sampler":
            return "ratio_anchor: sampler uses the sampler's log-probs instead"
        if not is_aligned(args):
            return "neither of steps_per_generation and gradient_accumulation_steps divides the other"
        return "dropout makes two passes differ" if capabilities.has_dropout(model) else None
    if args.top_entropy_quantile < 1.0:
        return "top_entropy_quantile compares the tokens of a micro-batch"
    if _has_balance_loss(args, model.config.get_text_config()):
        return "the load-balancing loss of experts depends on the micro-batch"
    if name == "skip_zero_signal":
        if args.beta:
            return f"beta={args.beta:g}: the KL penalty gives every row a gradient"
        if args.entropy_coef or args.use_adaptive_entropy:
            return "the entropy bonus gives every row a gradient"
    return None


def _has_balance_loss(args: GRPOConfig, config: Any) -> bool:
    """Whether TRL adds the load-balancing loss of experts. Its coefficient comes from `args` or from the model."""
    coefficient = args.router_aux_loss_coef
    if coefficient is None:
        coefficient = getattr(config, "router_aux_loss_coef", 0.0)
    return hasattr(config, "output_router_logits") and coefficient != 0.0


def is_aligned(args: GRPOConfig) -> bool:
    """Whether a generation covers a whole number of optimiser steps, or an optimiser step of generations."""
    small, large = sorted((args.steps_per_generation, args.gradient_accumulation_steps))
    return large % small == 0
