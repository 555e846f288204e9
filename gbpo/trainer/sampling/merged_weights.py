"""Merges an adapter into copies of the weights, for an engine that gets the weights of the whole model."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn
from torch.distributed.tensor import DTensor


def has_mergeable_adapter(model: Any) -> bool:
    """Whether a model has an adapter that can be merged into its weights."""
    return isinstance(model, PeftModel) and isinstance(model.base_model, BaseTuner)


def merged_weights(
    model: PeftModel, weights: Iterable[tuple[str, torch.Tensor]], dtype: torch.dtype, generator: torch.Generator
) -> Iterator[tuple[str, torch.Tensor]]:
    """Merge the adapter into copies of the weights, one layer at a time. The weights of the model stay as they are.

    PEFT merges into the weights themselves, and subtracts the adapter afterwards. Both round, so in bfloat16 the
    weights of the trainer would move away from those of the checkpoint, to which the saved adapter belongs.

    PEFT also rounds to the nearest number, so that in bfloat16 a change of a weight by less than 1/512 of it is lost.
    Early in a run that is most of what an adapter has learnt. Here the sum is rounded up or down at random, so that its
    mean is right. What remains is noise, which is different in each weight.

    Args:
        model: The model. Its weights may be sharded by FSDP2.
        weights: Names, as vLLM expects them, and weights of the model without the adapter. With ZeRO-3 the weights of
            the model are whole while this is iterated.
        dtype: The dtype of the engine, in which the trainer computes too.
        generator: Draws the direction of the rounding. All ranks must draw the same.
    """
    names = {id(parameter): _name_for_vllm(name) for name, parameter in model.named_parameters()}
    layers: dict[str, list[tuple[BaseTunerLayer, str]]] = {}  # the layers with this weight, and its name in them
    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            for own_name, parameter in layer.get_base_layer().named_parameters(recurse=False):
                layers.setdefault(names[id(parameter)], []).append((layer, own_name))
    for name, weight in weights:
        if name in layers:
            weight = _merged(layers[name], dtype, generator)
        yield name, weight


def _name_for_vllm(name: str) -> str:
    """The name that TRL gives to a weight of a PEFT model when it sends the weight."""
    for part in (".base_layer", "_checkpoint_wrapped_module."):
        name = name.replace(part, "")
    return name.removeprefix("base_model.model.")


def _merged(
    layers: Iterable[tuple[BaseTunerLayer, str]], dtype: torch.dtype, generator: torch.Generator
) -> torch.Tensor:
    """One weight with the adapters of its layers. Tied weights are those of two layers."""
    total: Any = None
    for layer, name in layers:
        base = layer.get_base_layer()
        own = dict(base.named_parameters(recurse=False))
        start = own[name].data.to(dtype) if total is None else total  # rounded as in the trainer's forward pass
        try:
            for other, parameter in own.items():
                value = start if other == name else parameter.data
                base._parameters[other] = nn.Parameter(value.to(torch.float32, copy=True), requires_grad=False)
            layer.merge()
            total = base._parameters[name].data
        finally:
            base._parameters.update(own)
            layer.merged_adapters.clear()
    if isinstance(total, DTensor):
        moved: Any = total.to(generator.device)
        total = moved.full_tensor()
    return _rounded(total, dtype, generator)


def _rounded(values: torch.Tensor, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """Float32 values in another dtype, each rounded up or down at random so that its mean stays."""
    if dtype == torch.float32:
        return values
    dropped = 23 + int(math.log2(torch.finfo(dtype).eps))  # bits of the fraction that the dtype does not have
    bits = values.view(torch.int32)
    noise = torch.randint(1 << dropped, bits.shape, generator=generator, device=bits.device, dtype=bits.dtype)
    return noise.add_(bits).bitwise_and_(-(1 << dropped)).view(torch.float32).to(dtype)
