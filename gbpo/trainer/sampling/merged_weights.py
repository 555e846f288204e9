"""Merges an adapter into copies of the weights, for an engine that gets the weights of the whole model."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer


def has_mergeable_adapter(model: Any) -> bool:
    """Whether a model has an adapter that can be merged into its weights."""
    return isinstance(model, PeftModel) and isinstance(model.base_model, BaseTuner)


def merged_weights(model: PeftModel, weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
    """Merge the adapter into copies of the weights, one layer at a time. The weights of the model stay as they are.

    PEFT merges into the weights themselves, and subtracts the adapter afterwards. Both round, so in bfloat16 the
    weights of the trainer would move away from those of the checkpoint, to which the saved adapter belongs.

    Args:
        model: The model. Every process holds all of its weights.
        weights: Names and weights of the model without the adapter. A weight shares its memory with the model's.
    """
    layers: dict[int, list[tuple[BaseTunerLayer, torch.nn.Parameter]]] = {}  # by the address of the weight
    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            for parameter in layer.get_base_layer().parameters(recurse=False):
                layers.setdefault(parameter.data_ptr(), []).append((layer, parameter))
    for name, weight in weights:
        for layer, parameter in layers.get(weight.data_ptr(), ()):
            weight = _merged(layer, parameter, weight)
        yield name, weight


def _merged(layer: BaseTunerLayer, parameter: torch.nn.Parameter, weight: torch.Tensor) -> torch.Tensor:
    """One weight of a layer, with the adapter of the layer."""
    own = [(one, one.data) for one in layer.get_base_layer().parameters(recurse=False)]
    for one, data in own:
        one.data = (weight if one is parameter else data).clone()
    try:
        layer.merge()
        return parameter.data
    finally:
        for one, data in own:
            one.data = data
        layer.merged_adapters.clear()
